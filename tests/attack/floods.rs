//! Floods of connections and requests.

use std::time::Instant;

use futures::future::join_all;
use memchr::memmem;
use records::auth::new_key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PROMPT, Victim, files, keep, read_to_end};

const HALF: &str = "GET /api/v1/records/1 HTTP/1.1\r\nHost: te";

pub async fn a_thousand_half_sent_heads_are_let_go_while_others_are_served() {
    let victim = Victim::with_records(1, 10, &["--header-timeout", "3s"]);
    let mut slow = join_all((0..1_000).map(|_| victim.send(HALF))).await;
    for _ in 0..20 {
        victim.assert_serves().await;
    }
    for answer in join_all(slow.iter_mut().map(read_to_end)).await {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    victim.assert_survives().await;
}

pub async fn more_clients_than_a_process_has_files_by_default_are_served() {
    let victim = Victim::with_files(256, false, &[]);
    let kept = join_all((0..600).map(|_| async { keep(victim.connect().await).await })).await;
    victim.assert_serves().await;
    drop(kept);
    victim.assert_survives().await;
}

pub async fn fewer_files_than_connections_are_said_and_leave_room_for_the_store() {
    let victim = Victim::with_files(64, true, &["--header-timeout", "3s"]);
    let log = victim.start_log();
    assert!(log.contains("fewer connections than --max-connections"), "{log}");
    // Connections beyond the limit wait in the system's queue until the first ones are closed.
    let idle = join_all((0..40).map(|_| victim.connect())).await;
    victim.assert_serves().await;
    drop(idle);
    victim.terminate();
    let log = victim.wait_for_stop();
    assert!(!log.contains("cannot accept connections"), "{log}");
}

pub async fn a_burst_beyond_the_limit_is_503_with_a_time_to_come_back_and_then_all_is_well() {
    // A sorted page reads all records, and yields to other requests meanwhile.
    let victim = Victim::with_records(4_000, 200, &["--max-requests", "2"]);
    let (mut served, mut refused) = (0, 0);
    // On a slow machine the requests may not overlap enough: then the burst is repeated.
    while served == 0 || refused == 0 {
        let answers = join_all((0..50).map(|_| victim.get("/api/v1/records?sort=text&limit=1"))).await;
        for (answer, _) in answers {
            if answer.starts_with("HTTP/1.1 503") {
                assert!(answer.contains("retry-after: 1"), "{answer}");
                refused += 1;
            } else {
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                served += 1;
            }
        }
    }
    victim.assert_survives().await;
}

/// The memory limit for an idle connection, in KiB.
const IDLE_MAX_KIB: u64 = 24;

pub async fn ten_thousand_idle_connections() {
    const COUNT: usize = 10_000;
    assert!(
        files() >= COUNT as u64 + 500,
        "{} open files are too few for {COUNT} connections: see `ulimit -n`",
        files()
    );
    let victim = Victim::with_records(1, 10, &["--max-connections", "10100", "--header-timeout", "10m"]);
    victim.assert_serves().await;
    let before = victim.memory();
    let mut idle = Vec::with_capacity(COUNT);
    while idle.len() < COUNT {
        // The connections come in groups that fit into the system's queue.
        idle.extend(join_all((0..100).map(|_| async { keep(victim.connect().await).await })).await);
    }
    let (begin, mut worst) = (Instant::now(), std::time::Duration::ZERO);
    for _ in 0..100 {
        let (answer, took) = victim.get("/api/v1/records/1").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        worst = worst.max(took);
    }
    let (mean, added) = (begin.elapsed() / 100, victim.memory() - before);
    println!(
        "{COUNT} idle connections: {added} KiB above {before} KiB; a lookup takes {mean:.1?}, at most {worst:.1?}"
    );
    assert!(added < COUNT as u64 * IDLE_MAX_KIB, "{added} KiB");
    assert!(worst.as_millis() < 500 || std::env::var_os("TEST_TIMES").is_none(), "a lookup took {worst:?}");
    // Connections that were idle for long are still served.
    for stream in idle.drain(..10) {
        keep(stream).await;
    }
    victim.terminate();
    victim.wait_for_stop();
}

pub async fn ten_thousand_wrong_keys_from_a_thousand_addresses_take_bounded_memory_and_log() {
    wrong_keys(10_000, 1_000, 4 * 1024).await;
}

/// Sends `count` requests with wrong keys from `addresses` addresses, and some with valid ones between them.
pub async fn wrong_keys(count: usize, addresses: usize, max_kib: u64) {
    const BURST: usize = 3;
    const BATCH: usize = 100;
    let keys: Vec<_> = (0..count / BATCH / BURST + 1).map(|at| new_key(&format!("key-{at}")).unwrap()).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    std::fs::write(&file, keys.iter().map(|key| key.line.clone() + "\n").collect::<String>()).unwrap();
    let mut victim = Victim::with_records(
        1,
        10,
        &[
            "--api-keys",
            file.to_str().unwrap(),
            "--rate-limit=1/h",
            &format!("--rate-burst={BURST}"),
            "--trusted-proxies=127.0.0.1",
        ],
    );
    victim.read_log();
    let mut stream = victim.connect().await;
    let before = victim.memory();
    let (mut wrong, mut refused) = (0, 0);
    for batch in 0..count / BATCH {
        let mut requests = String::new();
        for at in batch * BATCH..(batch + 1) * BATCH {
            let address = at % addresses;
            requests += &lookup(&format!("10.0.{}.{}", address / 250, address % 250), &format!("records_key_{at}"));
        }
        // From the address of an attacker.
        requests += &lookup("10.0.0.1", &keys[batch / BURST].secret);
        let answers = pipelined(&mut stream, &requests, BATCH + 1).await;
        let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses.last(), Some(&"200"), "a valid key was refused after {batch} batches");
        wrong += statuses.iter().filter(|status| **status == "401").count();
        refused += statuses.iter().filter(|status| **status == "429").count();
    }
    assert_eq!((wrong, refused), (addresses * BURST, count - addresses * BURST));
    let grown = victim.memory().saturating_sub(before);
    println!("{count} requests: {grown} KiB more");
    assert!(grown < max_kib, "{grown} KiB more");
    drop(stream);
    victim.terminate();
    let log = victim.wait_for_stop();
    let lines = log.lines().count();
    println!("{count} requests: {lines} lines");
    assert!(lines < wrong + count / BATCH + 100, "{lines} lines for {count} requests");
    assert!(log.contains("--rate-limit: requests were refused"), "{}", log.lines().take(5).collect::<String>());
    assert!(!log.contains("records_key_"));
}

fn lookup(client: &str, key: &str) -> String {
    format!(
        "GET /api/v1/records/1 HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\nAuthorization: Bearer {key}\r\n\r\n"
    )
}

/// Sends `count` requests at once on a connection that stays, and returns their answers.
async fn pipelined(stream: &mut TcpStream, requests: &str, count: usize) -> String {
    const STATUS_LINE: &[u8] = b"HTTP/1.1 ";
    let (mut reader, mut writer) = stream.split();
    let mut answers = Vec::new();
    let receive = async {
        let (mut begun, mut searched) = (0, 0);
        while begun < count || !answers.ends_with(b"}") {
            let read = timeout(PROMPT, reader.read_buf(&mut answers)).await.expect("an answer").unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answers));
            // Each byte is searched once: a search of all that arrived would take a time that grows with its square.
            begun += memmem::find_iter(&answers[searched..], STATUS_LINE).count();
            searched = answers.len().saturating_sub(STATUS_LINE.len() - 1);
        }
    };
    let (sent, ()) = tokio::join!(writer.write_all(requests.as_bytes()), receive);
    sent.unwrap();
    String::from_utf8(answers).unwrap()
}
