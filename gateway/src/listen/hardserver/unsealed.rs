//! Legacy callers over TLS: a task takes the encryption off, and what comes out goes through a pair of sockets to where all other
//! legacy callers are served.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;

use super::Socket;
use crate::listen::stream::Tls;

/// The inner end of a connection's pair of sockets. The task ends when both directions have, or one has failed; where the inner end is
/// closed, the caller is told so.
pub fn unsealed(mut stream: Tls) -> io::Result<Socket> {
    let (inner, outer) = StdUnixStream::pair()?;
    inner.set_nonblocking(true)?;
    outer.set_nonblocking(true)?;
    let mut outer = UnixStream::from_std(outer)?;
    tokio::spawn(async move {
        // Whichever end was lost: the other one sees its own end of it.
        let _ = copy_bidirectional(&mut stream, &mut outer).await;
    });
    Ok(Socket::Unix(inner))
}
