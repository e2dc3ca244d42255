//! A TCP proxy between a client and a server, which simulates network faults.

#![allow(dead_code)]

use std::io::Result;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections to a port of this machine.
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    from_server: Arc<AtomicU64>,
}

/// The state of the network. Connections from before the last cut or reset never work again.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The number of cuts: bytes vanish, and no connection is closed.
    cuts: u32,
    /// The number of resets: every connection ends at once, at both ends.
    resets: u32,
    /// True if new connections wait for [`Proxy::mend`]; otherwise they are refused until then.
    waits: bool,
    refuses: bool,
    /// The delay of every piece.
    delay: Duration,
    /// The total number of bytes from the server after which the proxy resets.
    until: Option<u64>,
    /// Replaces the bytes of every piece from the server after this many.
    garbles_after: Option<usize>,
}

impl Proxy {
    pub async fn to(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (state, _) = watch::channel(State::default());
        let from_server = Arc::new(AtomicU64::new(0));
        let link = Link { state: state.clone(), from_server: from_server.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(link.clone().connect(client, server));
            }
        });
        Ok(Self { port, state, from_server })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Drops every byte from now on without closing a connection, like an unplugged cable or a firewall.
    pub fn cut(&self) {
        self.state.send_modify(|state| (state.cuts, state.waits) = (state.cuts + 1, true));
    }

    /// Resets every connection and refuses new ones, like a host without the server.
    pub fn reset(&self) {
        self.state.send_modify(State::reset);
    }

    /// Resets like [`reset`](Self::reset) once the server has sent `bytes` more.
    pub fn reset_after(&self, bytes: u64) {
        let until = Some(self.received() + bytes);
        self.state.send_modify(|state| state.until = until);
    }

    /// Replaces the server's pieces by garbage after their first `kept` bytes.
    pub fn garble(&self, kept: usize) {
        self.state.send_modify(|state| state.garbles_after = Some(kept));
    }

    /// Delays every piece in both directions.
    pub fn slow_down(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Restores the network for new connections. Old connections stay broken; after a cut their ends cannot notice that.
    pub fn mend(&self) {
        self.state.send_modify(|state| *state = State { cuts: state.cuts, resets: state.resets, ..State::default() });
    }

    /// The number of bytes received from the server.
    pub fn received(&self) -> u64 {
        self.from_server.load(Ordering::Relaxed)
    }
}

fn garble(piece: &mut [u8], state: State) {
    if let Some(kept) = state.garbles_after {
        piece.iter_mut().skip(kept).for_each(|byte| *byte = b'G');
    }
}

impl State {
    fn reset(&mut self) {
        (self.resets, self.refuses, self.until) = (self.resets + 1, true, None);
    }
}

#[derive(Clone)]
struct Link {
    state: watch::Sender<State>,
    from_server: Arc<AtomicU64>,
}

impl Link {
    async fn connect(self, client: TcpStream, server: u16) {
        let mut state = self.state.subscribe();
        let Ok(begun) = state.wait_for(|state| !state.waits).await.map(|state| *state) else { return };
        if begun.refuses {
            let _ = client.set_zero_linger();
            return;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            self.forward(from_client, to_server, begun, |_, _| {}, |_| false),
            self.forward(from_server, to_client, begun, garble, |count| {
                let sent = self.from_server.fetch_add(count, Ordering::Relaxed) + count;
                self.state.borrow().until.is_some_and(|until| sent > until)
            })
        );
    }

    /// Forwards bytes in one direction. If `enough` returns true, the network breaks, and the bytes do not arrive.
    async fn forward(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        begun: State,
        change: impl Fn(&mut [u8], State),
        enough: impl Fn(u64) -> bool,
    ) {
        let mut state = self.state.subscribe();
        // Small pieces, so that a break can come at many points.
        let mut buffer = vec![0; 4 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = state.wait_for(|state| state.resets != begun.resets) => break,
            };
            let Ok(count @ 1..) = read else { break };
            let now = *state.borrow();
            if now.cuts != begun.cuts {
                continue;
            }
            tokio::time::sleep(now.delay).await;
            if enough(count as u64) {
                self.state.send_modify(State::reset);
                break;
            }
            change(&mut buffer[..count], now);
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let now = *state.borrow();
        if now.resets != begun.resets {
            // Makes the close a reset, which also loses the bytes in transit.
            let _ = from.as_ref().set_zero_linger();
            let _ = to.as_ref().set_zero_linger();
        } else if now.cuts != begun.cuts {
            // After a cut, even the end of a connection is not forwarded.
            std::future::pending::<()>().await;
        }
    }
}
