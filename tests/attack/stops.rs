//! SIGTERM during an attack: the process exits with 0 within the drain timeout, and earlier requests are answered.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::readers::LIST;
use crate::support::{LOOKUP, Victim, keep, read_to_end};

/// The time to end in addition to the drain. Generous, since a real hang lasts for an hour or for ever.
const SLACK: Duration = Duration::from_secs(60);

pub async fn a_stop_amid_half_sent_heads_and_idle_connections() {
    let victim = Victim::with_records(1, 10, &["--drain-timeout", "500ms", "--header-timeout", "1h"]);
    let _half = join_all((0..300).map(|_| victim.send("GET /api/v1/records/1 HTTP/1.1\r\nHo"))).await;
    let _kept = join_all((0..300).map(|_| async { keep(victim.connect().await).await })).await;
    let _silent = join_all((0..300).map(|_| victim.connect())).await;
    let begin = terminate(&victim);
    assert_stopped_within(victim, begin, Duration::from_millis(500));
}

pub async fn a_stop_amid_slow_readers() {
    let victim = Victim::with_records(1_000, 8_000, &["--drain-timeout", "5s"]);
    let mut stopped = join_all((0..20).map(|_| victim.connect_narrow())).await;
    let mut reading = victim.connect_narrow().await;
    for stream in stopped.iter_mut().chain([&mut reading]) {
        stream.write_all(LIST.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 1_000]).await.unwrap();
    }
    let begin = terminate(&victim);
    // The client that reads gets the whole list, while the server waits for those that do not.
    let list = read_to_end(&mut reading).await;
    assert!(list.ends_with("]\r\n0\r\n\r\n"), "cut after {} bytes", list.len());
    assert_stopped_within(victim, begin, Duration::from_secs(5));
}

pub async fn a_stop_amid_a_burst_answers_what_was_sent_before() {
    let victim = Victim::with_records(1, 10, &[]);
    // The requests do not wait for responses. Hence many connections are not accepted yet when the signal comes.
    let mut asked = join_all((0..300).map(|_| victim.send(LOOKUP))).await;
    let begin = terminate(&victim);
    for (index, stream) in asked.iter_mut().enumerate() {
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "client {index} got {answer:?}");
    }
    assert_stopped_within(victim, begin, Duration::ZERO);
}

pub async fn a_stop_amid_garbage() {
    let victim = Victim::with_records(1, 10, &[]);
    let _garbage = join_all((0..100).map(|_| victim.send("\x16\x03\x01\r\n\r\n"))).await;
    let _bodies = join_all((0..100).map(|_| victim.send("GET / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\nx"))).await;
    let begin = terminate(&victim);
    assert_stopped_within(victim, begin, Duration::ZERO);
}

/// Sends a single signal, since a second one would end the drain.
fn terminate(victim: &Victim) -> Instant {
    victim.terminate();
    Instant::now()
}

fn assert_stopped_within(victim: Victim, begin: Instant, drain: Duration) {
    victim.wait_for_stop();
    let took = begin.elapsed();
    assert!(took < drain + SLACK, "it took {took:?} to stop");
}
