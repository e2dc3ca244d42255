//! The router of a sharded cluster (`mongos`), as far as its clients can tell: forwards to a `mongod`, and answers what a `mongos`
//! answers by itself or in another form.

use std::collections::HashSet;
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Opcodes of the wire protocol. A client begins with a legacy command, whose answer is an `OP_REPLY`.
const OP_REPLY: i32 = 1;
const OP_MSG: i32 = 2013;

/// The bytes before the document of a message: a header, and flags, or what an `OP_REPLY` tells of a cursor.
const HEADER: usize = 16;
const BEFORE_REPLY: usize = HEADER + 20;
const BEFORE_MSG: usize = HEADER + 5;

pub struct Mongos {
    port: u16,
}

impl Mongos {
    pub async fn over(server: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(route(client, server));
            }
        });
        Ok(Self { port })
    }

    /// Returns the connection string without a database.
    pub fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }
}

async fn route(client: TcpStream, server: u16) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The ids of requests whose answers a `mongos` gives without a shard.
    let pings = Mutex::new(HashSet::new());
    let pings = || pings.lock().unwrap_or_else(PoisonError::into_inner);
    let note = |message: &mut Vec<u8>| {
        let (_, command) = parse(message)?;
        if command.keys().next().is_some_and(|name| name == "ping") {
            pings().insert(number(message, 4));
        }
        Ok(())
    };
    let answer = |message: &mut Vec<u8>| {
        let (start, mut reply) = parse(message)?;
        if pings().remove(&number(message, 8)) {
            // The time is that of no shard.
            reply.remove("operationTime");
        } else if reply.contains_key("maxWireVersion") {
            to_router(&mut reply);
        } else if let Some(plan) = reply.get_document_mut("queryPlanner").ok().and_then(|all| all.remove("winningPlan"))
        {
            let shard = doc! { "shardName": "shard0000", "winningPlan": plan, "rejectedPlans": [] };
            reply.insert("queryPlanner", doc! { "winningPlan": { "stage": "SHARD_MERGE_SORT", "shards": [shard] } });
        } else {
            return Ok(());
        }
        message.truncate(start);
        message.extend(reply.to_vec().map_err(Error::other)?);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    };
    tokio::try_join!(forward(from_client, to_server, note), forward(from_server, to_client, answer)).map(drop)
}

/// Makes the answer to a `hello` that of a `mongos`: it belongs to no replica set.
fn to_router(hello: &mut Document) {
    for name in ["setName", "setVersion", "hosts", "primary", "me", "secondary", "electionId", "lastWrite"] {
        hello.remove(name);
    }
    hello.insert("msg", "isdbgrid");
}

/// Forwards messages in one direction.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    change: impl Fn(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    loop {
        let length = from.read_u32_le().await?;
        let mut message = length.to_le_bytes().to_vec();
        message.resize(length as usize, 0);
        from.read_exact(&mut message[4..]).await?;
        change(&mut message)?;
        to.write_all(&message).await?;
    }
}

/// Returns the document of a message, and its start. That of a legacy command stays unread, and is empty here.
fn parse(message: &[u8]) -> Result<(usize, Document)> {
    let start = match number(message, 12) {
        OP_REPLY => BEFORE_REPLY,
        OP_MSG => BEFORE_MSG,
        _ => return Ok((0, Document::new())),
    };
    Ok((start, Document::from_reader(&message[start..]).map_err(Error::other)?))
}

fn number(message: &[u8], at: usize) -> i32 {
    i32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}
