//! A network between a client and a server, to be broken.

#![allow(dead_code)]

use std::io::Result;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections to a port of this machine.
pub struct Proxy {
    port: u16,
    /// How often the network was cut. What was connected before the last cut never hears anything again.
    cuts: watch::Sender<u32>,
    whole: watch::Sender<bool>,
}

impl Proxy {
    pub async fn to(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (cuts, cut) = watch::channel(0);
        let (whole, is_whole) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server, cut.clone(), is_whole.clone()));
            }
        });
        Ok(Self { port, cuts, whole })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on every byte is swallowed, and no connection is closed: a cable is out, a firewall drops packets.
    pub fn cut(&self) {
        self.whole.send_replace(false);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// New connections are forwarded again. The old ones stay as they are, which their ends cannot know.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn connect(client: TcpStream, server: u16, cut: watch::Receiver<u32>, mut whole: watch::Receiver<bool>) {
    if whole.wait_for(|whole| *whole).await.is_err() {
        return;
    }
    let cuts = *cut.borrow();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(forward(from_client, to_server, cut.clone(), cuts), forward(from_server, to_client, cut, cuts));
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cut: watch::Receiver<u32>, cuts: u32) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if *cut.borrow() == cuts && to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    if *cut.borrow() != cuts {
        // Not even the end of a connection comes through.
        std::future::pending::<()>().await;
    }
}
