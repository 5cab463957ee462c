//! A legacy caller's socket: what its port writes answers to, and what its connection reads jobs from.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::chores::{Chore, Chores};
use crate::shard::AnswerSink;

/// A caller that has gone is an error of the write, and no signal.
#[cfg(any(target_os = "linux", target_os = "android"))]
const WRITE_FLAGS: SendFlags = SendFlags::NOSIGNAL;
/// Rust programs ignore the signal.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const WRITE_FLAGS: SendFlags = SendFlags::empty();

/// A socket of either kind. It does not block.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    /// Reads once. Past the C library, whose calls cost a threaded program more: they can be cancelled.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| recv(self, &mut *into, RecvFlags::empty()))?.0)
    }

    /// A second handle to the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| send(self, bytes, WRITE_FLAGS))?)
    }

    /// Who is at the other end, for the log.
    pub(super) fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or_else(|_| "a TCP peer".into(), |peer| peer.to_string()),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Unix(stream) => {
                let peer = rustix::net::sockopt::socket_peercred(stream);
                peer.map_or_else(|_| "a Unix peer".into(), |peer| format!("uid {}", peer.uid.as_raw()))
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            Self::Unix(_) => "a Unix peer".into(),
        }
    }
}

/// A caller's socket as its port has it.
pub(super) struct Caller {
    pub(super) socket: Socket,
    /// Its connection's place.
    pub(super) place: usize,
    pub(super) chores: Arc<Chores>,
}

impl AnswerSink for Caller {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn left_over(&self) {
        self.chores.note(self.place, Chore::Write);
    }

    fn room(&self) {
        self.chores.note(self.place, Chore::Resume);
    }
}
