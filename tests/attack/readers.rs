//! Clients that request much and read little.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::http2;
use crate::support::{PROMPT, Victim, read_to_end};

pub const LIST: &str = "GET /api/v1/records HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

/// The last chunk of a body: an aborted body lacks it.
const END: &[u8] = b"]\r\n0\r\n\r\n";

pub async fn a_reader_that_stops_is_let_go_and_one_that_is_slow_gets_everything() {
    // More than the socket buffers of both sides hold.
    let victim = Victim::with_records(1_000, 8_000, &["--write-timeout", "3s"]);
    let mut stopped = join_all((0..20).map(|_| victim.connect_narrow())).await;
    for stream in &mut stopped {
        stream.write_all(LIST.as_bytes()).await.unwrap();
    }
    let mut slow = victim.connect_narrow().await;
    slow.write_all(LIST.as_bytes()).await.unwrap();
    let begin = Instant::now();
    let (mut bytes, mut last) = (0, Vec::new());
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = slow.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        bytes += read;
        last.extend_from_slice(&buffer[..read]);
        last.drain(..last.len().saturating_sub(END.len()));
        // Reads slowly for longer than the write timeout of the others.
        if begin.elapsed() < Duration::from_secs(6) {
            sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(bytes > 8_000_000 && last == END, "{bytes} bytes, ending in {last:?}");
    for stream in &mut stopped {
        let got = read_to_end(stream).await;
        assert!(!got.as_bytes().ends_with(END), "the client did not read, and got the whole list");
    }
    victim.assert_survives().await;
}

pub async fn a_reader_of_nothing_is_cut_in_time_and_counted() {
    let victim = Victim::with_records(1_000, 8_000, &["--write-timeout", "2s"]);
    let mut readers = vec![victim.connect().await, victim.connect_narrow().await];
    for reader in &mut readers {
        reader.write_all(LIST.as_bytes()).await.unwrap();
    }
    let begin = Instant::now();
    while victim.metric("records_http_write_timeouts_total").await < 2.0 {
        assert!(begin.elapsed() < PROMPT, "the clients are not cut");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "cut after {:?}", begin.elapsed());
    for reader in &mut readers {
        assert!(!read_to_end(reader).await.as_bytes().ends_with(END), "a list that was cut looks complete");
    }
    victim.assert_survives().await;
}

/// Uses the default write timeout. The client's system buffers as much as the client reads in half a minute, so the server sees
/// little progress.
pub async fn a_reader_of_4_000_bytes_a_second_is_not_cut() {
    let victim = Victim::with_records(1_000, 8_000, &[]);
    let mut readers = vec![victim.connect().await, victim.connect_narrow().await];
    for reader in &mut readers {
        reader.write_all(LIST.as_bytes()).await.unwrap();
    }
    let mut over_http2 = vec![victim.connect().await, victim.connect_narrow().await];
    for reader in &mut over_http2 {
        reader.write_all(&http2::request_without_flow_control("/api/v1/records")).await.unwrap();
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(100) {
        for reader in readers.iter_mut().chain(&mut over_http2) {
            reader.read_exact(&mut [0; 400]).await.unwrap();
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(victim.metric("records_http_write_timeouts_total").await, 0.0);
    for reader in &mut readers {
        assert!(read_to_end(reader).await.as_bytes().ends_with(END), "the list was cut");
    }
    victim.assert_survives().await;
}

/// The memory limit for a client that reads slowly, in KiB.
pub const READER_MAX_KIB: u64 = 512;

/// The same for a remote store, which holds a batch and the one that is read ahead, of up to 1 MiB each. The streams of
/// `--max-streams` then fit twice into the container.
pub const REMOTE_READER_MAX_KIB: u64 = 2_560;

/// A stream for each reader, which reserves 1 MiB.
pub const STREAMS: [&str; 4] = ["--max-streams", "100", "--response-memory-limit", "128MiB"];

pub async fn many_slow_readers(victim: Victim, max_kib: u64) {
    const READERS: usize = 100;
    // The first list allocates what later ones reuse.
    victim.ask(LIST).await;
    let before = victim.memory();
    let mut readers = join_all((0..READERS).map(|_| victim.connect_narrow())).await;
    for stream in &mut readers {
        stream.write_all(LIST.as_bytes()).await.unwrap();
    }
    let mut peak = before;
    for _ in 0..20 {
        join_all(readers.iter_mut().map(read_a_little)).await;
        victim.assert_serves().await;
        peak = peak.max(victim.memory());
    }
    let added = peak - before;
    println!("{READERS} slow readers: {added} KiB above {before} KiB");
    assert!(added < READERS as u64 * max_kib, "{added} KiB");
    // Clients that continue to read get the whole list.
    for stream in readers.iter_mut().take(3) {
        let rest = read_to_end(stream).await;
        assert!(rest.as_bytes().ends_with(END));
    }
    drop(readers);
    victim.assert_survives().await;
}

/// The memory that responses may hold by default, in KiB.
const RESPONSES_MAX_KIB: u64 = 64 * 1024;

/// The overhead of the allocator.
const MORE_KIB: u64 = 32 * 1024;

/// Number and size of records such that a page takes 8 MB.
pub const OF_8_MB: (usize, usize) = (10_000, 800);

/// Checks the memory of pages that are not read. `times` is the number of copies of a page that may be resident, in addition to
/// those of the store.
pub async fn pages_that_nobody_reads(victim: Victim, times: u64) {
    const READERS: usize = 40;
    let page = "GET /api/v1/records?limit=10000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    victim.assert_serves().await;
    let before = victim.memory();
    let mut readers = join_all((0..READERS).map(|_| victim.connect_narrow())).await;
    for stream in &mut readers {
        stream.write_all(page.as_bytes()).await.unwrap();
    }
    // Pages that do not fit are refused at once with a 503.
    let heads = join_all(readers.iter_mut().map(|stream| async {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        head.ends_with(b"200")
    }));
    let answered = heads.await.into_iter().filter(|answered| *answered).count();
    let added = victim.memory() - before;
    println!("{answered} of {READERS} unread pages: {added} KiB above {before} KiB");
    assert!(answered >= 3 && added < times * RESPONSES_MAX_KIB + MORE_KIB, "{answered} pages, {added} KiB");
    victim.assert_serves().await;
    drop(readers);
    let (again, _) = victim.get("/api/v1/records?limit=10000").await;
    assert!(again.starts_with("HTTP/1.1 200") && again.ends_with(']'), "{}", &again[..again.len().min(500)]);
    victim.assert_survives().await;
}

/// The limit of a container that has no replica, in KiB.
const CONTAINER_KIB: u64 = 256 * 1024;

/// A thousand clients request a list in each coding and read little of it. Once they have gone, their memory is released.
pub async fn a_thousand_slow_readers_of_every_coding() {
    const READERS: usize = 1_000;
    let victim = Victim::with_records(50_000, 200, &["--write-timeout", "10m"]);
    victim.ask(LIST).await;
    for coding in ["identity", "gzip", "br", "zstd"] {
        let list = LIST.replace("Connection", &format!("Accept-Encoding: {coding}\r\nConnection"));
        let mut readers = Vec::with_capacity(READERS);
        while readers.len() < READERS {
            readers.extend(join_all((0..100).map(|_| victim.connect_narrow())).await);
        }
        let statuses = join_all(readers.iter_mut().map(|stream| async {
            stream.write_all(list.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            head[9..].to_owned()
        }))
        .await;
        let served = statuses.iter().filter(|status| *status == b"200").count();
        let refused = statuses.iter().filter(|status| *status == b"503").count();
        assert!(served >= 20 && served + refused == READERS, "{served} served, {refused} refused");
        victim.assert_serves().await;
        let memory = victim.memory();
        println!("{READERS} slow readers, {coding}: {served} served, {memory} KiB");
        assert!(memory < CONTAINER_KIB, "{memory} KiB");
        assert!(victim.metric("records_http_response_memory_bytes").await > 0.0);
        drop(readers);
        while victim.metric("records_http_response_memory_bytes").await > 0.0 {}
        assert_eq!(victim.metric("records_http_list_streams").await, 0.0);
    }
    victim.assert_survives().await;
}

/// A small container could not hold a copy of the record for each of these clients.
pub async fn slow_readers_of_15_mb_records() {
    const READERS: usize = 100;
    let victim = Victim::with_records(3, 15_000_000, &["--write-timeout", "10m"]);
    victim.assert_serves_absent().await;
    let before = victim.memory();
    for path in ["/api/v1/records", "/api/v1/records/2", "/api/v1/records?limit=2"] {
        let mut readers = join_all((0..READERS).map(|_| victim.connect_narrow())).await;
        let heads = join_all(readers.iter_mut().map(|stream| async {
            let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            head.ends_with(b"200")
        }));
        let served = heads.await.into_iter().filter(|served| *served).count();
        victim.assert_serves_absent().await;
        let added = victim.memory() - before;
        println!("{served} of {READERS} slow readers of {path}: {added} KiB above {before} KiB");
        assert!(served >= 1 && added < RESPONSES_MAX_KIB + MORE_KIB, "{served} served, {added} KiB");
        drop(readers);
        while victim.metric("records_http_response_memory_bytes").await > 0.0 {}
    }
    victim.terminate();
    victim.wait_for_stop();
}

async fn read_a_little(stream: &mut TcpStream) {
    sleep(Duration::from_millis(50)).await;
    stream.read_exact(&mut [0; 4_096]).await.unwrap();
}
