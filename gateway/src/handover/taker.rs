//! The new gateway's side: asks for what the old one has, says when it can take jobs, and takes in the connections that come.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};
use tokio::sync::mpsc;

use super::message::{Message, MessageError, Said, receive, send};
use super::{Carried, Counts, Drains, PROTOCOL, Running};
use crate::listen::hardserver::Socket;
use crate::listen::inherited::{Inherited, InheritedSocket};

/// How long the old gateway may take for each answer. It may be busy with another one that wants to take over.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(70);

/// A connection that has come from the old gateway.
#[derive(Debug)]
pub struct Arrived {
    /// Its socket.
    pub socket: Socket,
    /// What came along.
    pub carried: Carried,
}

/// The old gateway, which goes on as it is until [`ready`](Self::ready).
pub struct Taker {
    stream: UnixStream,
    /// Who it is.
    pub running: Running,
    /// How often systemd wants to hear of its main process, where it does.
    pub watchdog: Option<Duration>,
    /// The worlds that can take jobs there.
    pub ready_worlds: Vec<String>,
    /// What operators have taken out of work there.
    pub drains: Drains,
}

/// The old gateway after it has given its listeners: its connections come.
#[derive(Clone)]
pub struct Yours {
    stream: Arc<UnixStream>,
    /// Who it is.
    running: Running,
    drains: Drains,
}

impl Taker {
    /// Asks the gateway that listens at `path` for its listening sockets; `None` where there is none. Can be given up, as long as that one
    /// says nothing: it may be busy with another one.
    ///
    /// # Errors
    /// It refuses, or speaks something else, or says nothing in time.
    pub async fn connect(path: &Path) -> Result<Option<(Self, Inherited)>, MessageError> {
        let Some(stream) = connect(path)? else { return Ok(None) };
        send(&stream, &Said::Hello { protocol: PROTOCOL, running: Running::this()? }, None, &[])?;
        let stream = once_answered(stream).await?;
        let mut inherited = Inherited::default();
        loop {
            let message = receive(&stream)?;
            match (message.said, message.socket) {
                (Said::Listener { role, name, is_lent }, Some(socket)) => {
                    inherited.add(InheritedSocket { role: Some(role), name, socket, is_lent });
                }
                (Said::Welcome { running, watchdog_microseconds, ready_worlds, drains }, _) => {
                    let watchdog = (watchdog_microseconds > 0).then(|| Duration::from_micros(watchdog_microseconds));
                    return Ok(Some((Self { stream, running, watchdog, ready_worlds, drains }, inherited)));
                }
                (other, _) => return Err(MessageError::Foreign(format!("{other:?}"))),
            }
        }
    }

    /// Says that this gateway can take jobs, and what it has renamed the old one's audit log to; returns when the old one wants it to accept
    /// callers, which is to be said then ([`Yours::opened`]). `None` where the old one has ended meanwhile: then the listeners are this one's all the same. Blocks.
    ///
    /// # Errors
    /// It does not want to any more, or answers something else.
    pub fn ready(self, audit_aside: Option<PathBuf>) -> Result<Option<Yours>, MessageError> {
        let Self { stream, running, .. } = self;
        match ask(&stream, &Said::Ready { audit_aside }) {
            Ok(Message { said: Said::Yours { drains }, .. }) => {
                Ok(Some(Yours { stream: Arc::new(stream), running, drains }))
            }
            Ok(message) => Err(MessageError::Foreign(format!("{:?}", message.said))),
            Err(error) if error.is_end() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Yours {
    /// Says that this gateway accepts callers; returns when the old one has said that it does not any more. False where the old one has ended.
    /// Blocks.
    ///
    /// # Errors
    /// The old one goes on: it has not heard of this one in time, or was told to stop.
    pub fn opened(&self) -> Result<bool, MessageError> {
        match ask(&self.stream, &Said::Opened) {
            Ok(message) if matches!(message.said, Said::Alone) => Ok(true),
            Ok(message) => Err(MessageError::Foreign(format!("{:?}", message.said))),
            Err(error) if error.is_end() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What operators have taken out of work there by now.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// Which process the old one is.
    pub fn pid(&self) -> u32 {
        self.running.pid
    }

    /// Says that whoever watches over the two watches this process now, so that the old one may end.
    ///
    /// # Errors
    /// The old one has ended already.
    pub fn settled(&self) -> Result<(), MessageError> {
        send(&self.stream, &Said::Settled, None, &[])
    }

    /// Says that this gateway was told to stop, which is meant for the old one, too.
    ///
    /// # Errors
    /// The old one has ended already.
    pub fn stopping(&self) -> Result<(), MessageError> {
        send(&self.stream, &Said::Stopping, None, &[])
    }

    /// Nothing more is heard, and [`take`](Self::take) ends.
    pub fn hang_up(&self) {
        // It may have ended.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Takes in each connection that comes, and returns when the old gateway has ended. Blocks. As long as others may come `counts` says so.
    ///
    /// # Errors
    /// The old gateway has ended before it had given them all.
    pub fn take(&self, arrived: &mpsc::Sender<Arrived>, counts: &Counts) -> Result<(), MessageError> {
        let taken = self.take_all(arrived);
        counts.takes_over_from.store(0, Ordering::Relaxed);
        taken?;
        // It finishes what could not move, and says nothing; what it may still give has nobody to go to.
        while receive(&self.stream).is_ok() {}
        Ok(())
    }

    fn take_all(&self, arrived: &mpsc::Sender<Arrived>) -> Result<(), MessageError> {
        // For as long as a job lasts there may be nothing to say.
        self.stream.set_read_timeout(None)?;
        loop {
            let message = receive(&self.stream)?;
            match (message.said, message.socket) {
                (Said::Caller { first_handle, room, worlds }, Some(socket)) => {
                    let carried = Carried { first_handle, room, worlds, unread: message.bytes };
                    let Some(socket) = socket_of(socket) else { continue };
                    if arrived.blocking_send(Arrived { socket, carried }).is_err() {
                        return Ok(());
                    }
                }
                (Said::Caller { .. }, None) => {
                    // The system drops it on the way, and the others still come.
                    tracing::error!(
                        "a connection could not be taken over: let this process have more open files (LimitNOFILE=)"
                    );
                }
                (Said::Done, _) => return Ok(()),
                (other, _) => return Err(MessageError::Foreign(format!("{other:?}"))),
            }
        }
    }
}

/// Has the gateway that listens at `path` read its configuration again; returns the problems that it has with it, if any. `None` where
/// nobody listens.
///
/// # Errors
/// It is no gateway, or ends.
pub fn ask_to_reload(path: &Path) -> Result<Option<Result<(), String>>, MessageError> {
    let Some(stream) = connect(path)? else { return Ok(None) };
    send(&stream, &Said::Reload, None, &[])?;
    match receive(&stream)?.said {
        Said::Reloaded { problems } => Ok(Some(problems.map_or(Ok(()), Err))),
        other => Err(MessageError::Foreign(format!("{other:?}"))),
    }
}

/// The folder that the gateway that runs there has its credentials in; `None` where nobody listens, or where it has none.
///
/// # Errors
/// It is no gateway, or one of a version that knows nothing of it.
pub fn ask_for_credentials(path: &Path) -> Result<Option<OwnedFd>, MessageError> {
    let Some(stream) = connect(path)? else { return Ok(None) };
    send(&stream, &Said::Credentials, None, &[])?;
    match receive(&stream)? {
        Message { said: Said::Folder, socket, .. } => Ok(socket),
        message => Err(MessageError::Foreign(format!("{:?}", message.said))),
    }
}

/// Which program runs there; `None` where none does. It may be busy with another one that wants to take over, and answer late.
///
/// # Errors
/// It is no gateway, or does not answer in time.
pub fn ask_who(path: &Path, timeout: Duration) -> Result<Option<Running>, MessageError> {
    let Some(stream) = connect(path)? else { return Ok(None) };
    stream.set_read_timeout(Some(timeout))?;
    send(&stream, &Said::Who, None, &[])?;
    match receive(&stream)?.said {
        Said::Running(running) => Ok(Some(running)),
        other => Err(MessageError::Foreign(format!("{other:?}"))),
    }
}

/// Says something, and waits for the answer. What was said before the other side has closed is heard, too.
fn ask(stream: &UnixStream, said: &Said) -> Result<Message, MessageError> {
    match send(stream, said, None, &[]) {
        Err(error) if !error.is_end() => Err(error),
        _ => receive(stream),
    }
}

/// Returns when the other side has begun to say something. Without a thread that blocks: this process is not confined yet, and must have
/// one only.
async fn once_answered(stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    tokio::time::timeout(STEP_TIMEOUT, stream.readable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// `None` where nobody listens there.
fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    Ok(Some(stream))
}

fn socket_of(socket: OwnedFd) -> Option<Socket> {
    match sockopt::socket_domain(socket.as_fd()).ok()? {
        AddressFamily::UNIX => Some(Socket::Unix(socket.into())),
        AddressFamily::INET | AddressFamily::INET6 => Some(Socket::Tcp(socket.into())),
        _ => None,
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_the_end_is_heard_after_it() {
        let (old, new) = UnixStream::pair().expect("a pair");
        send(&old, &Said::Refused { why: "too late".into() }, None, &[]).expect("sent");
        drop(old);
        let yours = || {
            let running = Running { version: String::new(), pid: 1, binary: (0, 0) };
            Yours { stream: Arc::new(new.try_clone().expect("cloned")), running, drains: Drains::default() }
        };
        assert!(matches!(yours().opened(), Err(MessageError::Refused(why)) if why == "too late"));
        assert!(matches!(yours().opened(), Ok(false)), "it has ended");
    }
}
