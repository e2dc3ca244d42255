//! Too many of something at once.

use std::time::Instant;

use futures::future::join_all;

use crate::support::{Victim, files, keep, read_to_end};

const HALF: &str = "GET /api/v1/records/1 HTTP/1.1\r\nHost: te";

pub async fn a_thousand_half_sent_heads_are_let_go_while_others_are_served() {
    let victim = Victim::with_records(1, 10, &["--header-timeout", "500ms"]);
    let mut slow = join_all((0..1_000).map(|_| victim.send(HALF))).await;
    for _ in 0..20 {
        victim.serves().await;
    }
    for answer in join_all(slow.iter_mut().map(read_to_end)).await {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    victim.survives().await;
}

pub async fn more_clients_than_a_process_has_files_by_default_are_served() {
    let victim = Victim::with_files(256, false, &[]);
    let kept = join_all((0..600).map(|_| async { keep(victim.connect().await).await })).await;
    victim.serves().await;
    drop(kept);
    victim.survives().await;
}

pub async fn fewer_files_than_connections_are_said_and_leave_room_for_the_store() {
    let victim = Victim::with_files(64, true, &["--header-timeout", "500ms"]);
    // Those beyond wait in the system's queue until the first ones are let go.
    let idle = join_all((0..40).map(|_| victim.connect())).await;
    victim.serves().await;
    drop(idle);
    victim.terminate();
    let log = victim.stopped();
    assert!(!log.contains("cannot accept connections"), "{log}");
}

pub async fn a_burst_beyond_the_limit_is_503_with_a_time_to_come_back_and_then_all_is_well() {
    // A sorted page reads all records, and lets others have their turn meanwhile.
    let victim = Victim::with_records(4_000, 200, &["--max-requests", "2"]);
    let (mut served, mut refused) = (0, 0);
    // A slow machine may have done with some before others come: then again.
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
    victim.survives().await;
}

/// How much memory an idle connection may take, in KiB.
const IDLE_MAX_KIB: u64 = 24;

pub async fn ten_thousand_idle_connections() {
    const COUNT: usize = 10_000;
    assert!(
        files() >= COUNT as u64 + 500,
        "{} open files are too few for {COUNT} connections: see `ulimit -n`",
        files()
    );
    let victim = Victim::with_records(1, 10, &["--max-connections", "10100", "--header-timeout", "10m"]);
    victim.serves().await;
    let before = victim.memory();
    let mut idle = Vec::with_capacity(COUNT);
    while idle.len() < COUNT {
        // Few enough at once that the system's queue holds them.
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
    // Those that had been idle for long are served like any.
    for stream in idle.drain(..10) {
        keep(stream).await;
    }
    victim.terminate();
    victim.stopped();
}
