//! Legacy callers over TLS: a task takes the encryption off, and what comes out goes through a pair of sockets to where all other
//! legacy callers are served.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Socket;
use crate::listen::stream::Tls;
use crate::shard::CallerCount;

/// How long a caller's end may take to close, once this end has.
const CLOSING: Duration = Duration::from_secs(2);

/// The inner end of a connection's pair of sockets, which counts as one caller as long as the task lives.
///
/// A caller that sends no more may still be answered. Once the gateway has said all that it will, the connection is over, whether its
/// caller closes it or not: otherwise it would be one that nobody counts.
pub fn unsealed(stream: Tls, count: CallerCount) -> io::Result<Socket> {
    let (inner, outer) = StdUnixStream::pair()?;
    inner.set_nonblocking(true)?;
    outer.set_nonblocking(true)?;
    let outer = UnixStream::from_std(outer)?;
    tokio::spawn(async move {
        carry(stream, outer).await;
        drop(count);
    });
    Ok(Socket::Unix(inner))
}

/// Whichever end was lost: the other one sees its own end of it, when both are dropped.
async fn carry(stream: Tls, outer: UnixStream) {
    let (mut from_caller, mut to_caller) = tokio::io::split(stream);
    let (mut from_gateway, mut to_gateway) = outer.into_split();
    let in_ward = async {
        if copy(&mut from_caller, &mut to_gateway).await.is_ok() && to_gateway.shutdown().await.is_ok() {
            // The answers to what it sent are on their way.
            std::future::pending::<()>().await;
        }
    };
    let out_ward = async {
        if copy(&mut from_gateway, &mut to_caller).await.is_ok() {
            // A caller that does not read can not hold it up for longer.
            let _ = timeout(CLOSING, to_caller.shutdown()).await;
        }
    };
    tokio::select! {
        () = in_ward => {}
        () = out_ward => {}
    }
}
