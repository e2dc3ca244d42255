//! HTTP/2 that its specification forbids, or that would exhaust a server.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PROMPT, Victim};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Frame types (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The memory limit for a flood, in KiB.
const FLOOD_MAX_KIB: u64 = 16 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the header block of `GET path`, in literals that are not added to the dynamic table.
fn get(path: &str) -> Vec<u8> {
    [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 4], b"test"].concat()
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(path))
}

/// Returns the begin of a connection whose windows are so large that only its socket holds the response up.
pub fn request_without_flow_control(path: &str) -> Vec<u8> {
    let window = 1_u32 << 30;
    let large = [&[0, 4][..], &window.to_be_bytes()].concat();
    let begin = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &large), frame(WINDOW_UPDATE, 0, 0, &window.to_be_bytes())];
    [begin.concat(), request(1, path)].concat()
}

/// Opens a connection whose flow-control window lets the server send no byte of a body.
async fn connect_without_window(victim: &Victim) -> TcpStream {
    let no_window = [&[0, 4][..], &0_u32.to_be_bytes()].concat();
    victim.send([PREFACE, &frame(SETTINGS, 0, 0, &no_window)].concat()).await
}

/// Reads the next frame: its type, its stream and its payload. Returns `None` when the server has closed the connection.
async fn next(stream: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let read = async {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    };
    timeout(PROMPT, read).await.expect("the server neither answered nor closed")
}

/// Returns the code of the `GOAWAY` before the end of the connection, if there is one.
async fn read_goaway(stream: &mut TcpStream) -> Option<u32> {
    let mut code = None;
    while let Some((kind, _, payload)) = next(stream).await {
        if kind == GOAWAY {
            code = payload[4..8].try_into().ok().map(u32::from_be_bytes);
        }
    }
    code
}

/// Sends `frames` until the server refuses more. Returns the number of bytes that it accepted.
async fn flood(stream: &mut TcpStream, frames: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match timeout(PROMPT, stream.write_all(frames)).await.expect("the server neither reads nor closes") {
            Ok(()) => sent += frames.len(),
            Err(_) => break,
        }
    }
    sent
}

pub async fn streams_that_are_reset_as_soon_as_they_begin_end_their_connection() {
    let victim = Victim::with_records(1, 10, &[]);
    let mut stream = connect_without_window(&victim).await;
    let mut resets = Vec::new();
    for index in 0..10_000 {
        let id = 2 * index + 1;
        resets.extend(request(id, "/api/v1/records/1"));
        resets.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(&resets).await;
    let code = read_goaway(&mut stream).await;
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    victim.assert_serves().await;
    // Only the request for the metrics is in flight.
    assert_eq!(victim.metric("records_http_requests_in_flight").await, 1.0);
    victim.assert_survives().await;
}

pub async fn streams_beyond_the_limit_are_refused_and_the_others_stay() {
    let victim = Victim::with_records(1, 10, &[]);
    let mut stream = connect_without_window(&victim).await;
    let requests: Vec<u8> = (0..150).flat_map(|index| request(2 * index + 1, "/api/v1/records/1")).collect();
    stream.write_all(&requests).await.unwrap();
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 150 {
        match next(&mut stream).await.expect("the connection stays") {
            (HEADERS, ..) => answered += 1,
            (RST_STREAM, _, code) => {
                assert_eq!(code, REFUSED_STREAM.to_be_bytes());
                refused += 1;
            }
            (DATA, ..) => panic!("data without a window"),
            _ => {}
        }
    }
    assert_eq!((answered, refused), (100, 50));
    // The drain would wait for the 100 streams.
    drop(stream);
    victim.assert_survives().await;
}

pub async fn header_blocks_without_end_are_cut() {
    let victim = Victim::with_records(1, 10, &[]);
    victim.assert_serves().await;
    let before = victim.memory();
    // A literal of 16,000 bytes in each frame; and thousands of references to one entry of the table.
    let long = [&[0x00, 1, b'x', 0x7f, 0x81, 0x7c][..], &[b'x'; 16_000]].concat();
    let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4_000]].concat();
    for (first, rest) in [(long.clone(), long), (entry, vec![0xbe; 16_000])] {
        let mut stream = connect_without_window(&victim).await;
        stream.write_all(&frame(HEADERS, END_STREAM, 1, &[get("/livez"), first].concat())).await.unwrap();
        let sent = flood(&mut stream, &frame(CONTINUATION, 0, 1, &rest), 64 << 20).await;
        assert!(sent < 64 << 20, "the server takes {sent} bytes of one header block");
        victim.assert_serves().await;
    }
    let added = victim.memory().saturating_sub(before);
    assert!(added < FLOOD_MAX_KIB, "{added} KiB");
    victim.assert_survives().await;
}

pub async fn frames_that_ask_for_a_reply_which_is_never_read_are_bounded() {
    let victim = Victim::with_records(1, 10, &["--write-timeout", "1s"]);
    victim.assert_serves().await;
    let before = victim.memory();
    for frames in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = connect_without_window(&victim).await;
        let sent = flood(&mut stream, &frames.repeat(1_000), 1 << 30).await;
        assert!(sent < 1 << 30, "the server takes {sent} bytes");
        victim.assert_serves().await;
    }
    let added = victim.memory().saturating_sub(before);
    assert!(added < FLOOD_MAX_KIB, "{added} KiB");
    victim.assert_survives().await;
}

pub async fn frames_that_no_connection_may_have_end_it() {
    let victim = Victim::with_records(1, 10, &[]);
    for wrong in [
        // Data for a stream that is not open, and for stream 0; a stream with the number of a server's stream.
        frame(DATA, 0, 1, b"x"),
        frame(DATA, 0, 0, b"x"),
        request(2, "/livez"),
        // Invalid lengths and values.
        frame(SETTINGS, 0, 0, b"12345"),
        frame(PING, 0, 0, b"1"),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(RST_STREAM, 0, 0, &[0; 4]),
        frame(CONTINUATION, 0, 1, b"x"),
        frame(HEADERS, END_HEADERS, 1, &[0x80]),
        [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 1_000]].concat(),
        // A window of more than 2^31 - 1 bytes.
        frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2),
    ] {
        let mut stream = connect_without_window(&victim).await;
        let _ = stream.write_all(&wrong).await;
        let code = read_goaway(&mut stream).await;
        assert!(code.is_none_or(|code| code != 0), "{wrong:?}");
        victim.assert_serves().await;
    }
    victim.assert_survives().await;
}

pub async fn requests_that_http_2_forbids_are_not_answered() {
    let victim = Victim::with_records(1, 10, &[]);
    let literal = |name: &str, value: &str| {
        [&[0x00, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    for field in [
        literal("connection", "close"),
        literal("transfer-encoding", "chunked"),
        literal("Upper", "x"),
        literal(":status", "200"),
        literal("x", "a\r\nb"),
    ] {
        let mut stream = connect_without_window(&victim).await;
        let block = [get("/api/v1/records/1"), field.clone()].concat();
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await.unwrap();
        // The server resets the stream or closes the connection.
        while let Some((kind, ..)) = next(&mut stream).await {
            assert_ne!(kind, HEADERS, "{field:?} is answered");
            if kind == RST_STREAM {
                stream.write_all(&request(3, "/api/v1/records/1")).await.unwrap();
                while !matches!(next(&mut stream).await.expect("the connection stays"), (HEADERS, 3, _)) {}
                break;
            }
        }
    }
    victim.assert_survives().await;
}
