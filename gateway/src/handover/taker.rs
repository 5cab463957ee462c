//! The new gateway's side: asks for what the old one has, says when it can take jobs, and takes in the connections that come.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};
use tokio::sync::mpsc;

use super::message::{MessageError, Said, receive, send};
use super::{Carried, PROTOCOL, Running};
use crate::listen::hardserver::Socket;
use crate::listen::inherited::{Inherited, InheritedSocket};

/// How long the old gateway may take for each answer. It may be busy with another one that wants to take over.
const STEP_TIMEOUT: Duration = Duration::from_secs(70);

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
}

/// The old gateway after it has given its listeners: its connections come.
pub struct Yours {
    stream: UnixStream,
}

impl Taker {
    /// Asks the gateway that listens at `path` for its listening sockets; `None` where there is none.
    ///
    /// # Errors
    /// It refuses, or speaks something else.
    pub fn connect(path: &Path) -> Result<Option<(Self, Inherited)>, MessageError> {
        let Some(mut stream) = connect(path)? else { return Ok(None) };
        send(&mut stream, &Said::Hello { protocol: PROTOCOL, running: Running::this()? }, None, &[])?;
        let mut inherited = Inherited::default();
        loop {
            let message = receive(&mut stream)?;
            match (message.said, message.socket) {
                (Said::Listener { role, name, is_lent }, Some(socket)) => {
                    inherited.add(InheritedSocket { role: Some(role), name, socket, is_lent });
                }
                (Said::Welcome { running, watchdog_microseconds, ready_worlds }, _) => {
                    let watchdog = (watchdog_microseconds > 0).then(|| Duration::from_micros(watchdog_microseconds));
                    return Ok(Some((Self { stream, running, watchdog, ready_worlds }, inherited)));
                }
                (other, _) => return Err(MessageError::Foreign(format!("{other:?}"))),
            }
        }
    }

    /// Says that this gateway can take jobs; returns when the old one has left it the listeners. `None` where the old one has ended
    /// meanwhile: then they are this one's all the same. Blocks.
    ///
    /// # Errors
    /// It does not want to any more, or answers something else.
    pub fn ready(mut self) -> Result<Option<Yours>, MessageError> {
        match send(&mut self.stream, &Said::Ready, None, &[]).and_then(|()| receive(&mut self.stream)) {
            Ok(message) if matches!(message.said, Said::Yours) => Ok(Some(Yours { stream: self.stream })),
            Ok(message) => Err(MessageError::Foreign(format!("{:?}", message.said))),
            Err(MessageError::Closed) => Ok(None),
            Err(MessageError::System(error)) if is_ended(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Yours {
    /// Says that whoever watches over the two watches this process now, so that the old one may end.
    ///
    /// # Errors
    /// The old one has ended already.
    pub fn settled(&self) -> Result<(), MessageError> {
        send(&mut self.stream.try_clone()?, &Said::Settled, None, &[])
    }

    /// A second handle, to say [`settled`](Self::settled) while connections come.
    ///
    /// # Errors
    /// There is no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// Takes in each connection that comes, until no other does. Blocks.
    ///
    /// # Errors
    /// The old gateway has ended before it had given them all.
    pub fn take(mut self, arrived: &mpsc::Sender<Arrived>) -> Result<(), MessageError> {
        // For as long as a job lasts there may be nothing to say.
        self.stream.set_read_timeout(None)?;
        loop {
            let message = receive(&mut self.stream)?;
            match (message.said, message.socket) {
                (Said::Caller { first_handle, room, worlds }, Some(socket)) => {
                    let carried = Carried { first_handle, room, worlds, unread: message.bytes };
                    let Some(socket) = socket_of(socket) else { continue };
                    if arrived.blocking_send(Arrived { socket, carried }).is_err() {
                        return Ok(());
                    }
                }
                (Said::Done, _) => return Ok(()),
                (other, _) => return Err(MessageError::Foreign(format!("{other:?}"))),
            }
        }
    }
}

/// Which program runs there; `None` where none does.
///
/// # Errors
/// It is no gateway, or does not answer.
pub fn ask_who(path: &Path) -> Result<Option<Running>, MessageError> {
    let Some(mut stream) = connect(path)? else { return Ok(None) };
    send(&mut stream, &Said::Who, None, &[])?;
    match receive(&mut stream)?.said {
        Said::Running(running) => Ok(Some(running)),
        other => Err(MessageError::Foreign(format!("{other:?}"))),
    }
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

fn is_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
