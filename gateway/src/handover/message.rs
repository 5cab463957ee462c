//! What the two gateways say to each other: JSON with a length before it, a socket beside it where there is one, and the bytes that
//! go with that. Blocking, with the time-outs of the socket.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use seeway_proto::wiped::WipedBuffer;
use serde::{Deserialize, Serialize};

use super::{Drains, Running};
use crate::listen::inherited::{Name, Role};

/// The largest text of a message, in bytes: the names of some thousand worlds.
const MAX_TEXT: usize = 1 << 20;

/// The most bytes that go with a connection: one message of the hardserver wire, whose framing takes 16 MiB, and what was read
/// behind it.
const MAX_BYTES: usize = 24 << 20;

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Said {
    /// To the old: which program are you?
    Who,
    /// The old: this one.
    Running(Running),
    /// To the old: I am about to take over.
    Hello { protocol: u32, running: Running },
    /// The old: no.
    Refused { why: String },
    /// The old: a listening socket of mine.
    Listener { role: Role, name: Name, is_lent: bool },
    /// The old: those were all. `watchdog_microseconds` is how often systemd wants to hear of its main process; 0: it does not.
    Welcome {
        running: Running,
        watchdog_microseconds: u64,
        #[serde(default)]
        ready_worlds: Vec<String>,
        #[serde(default)]
        drains: Drains,
    },
    /// To the old: I can take jobs. `audit_aside`: what I have renamed your audit log to, if I have; its own name is yours to give back
    /// where you go on.
    Ready {
        #[serde(default)]
        audit_aside: Option<PathBuf>,
    },
    /// The old: then accept. `drains`: what is out of work by now.
    Yours {
        #[serde(default)]
        drains: Drains,
    },
    /// To the old: I do. You need not any more.
    Opened,
    /// The old: I will not. From now on connections come.
    Alone,
    /// The old: a legacy connection.
    Caller { first_handle: u32, room: u32, worlds: Vec<Option<String>> },
    /// The old: no other connection comes.
    Done,
    /// To the old: whoever watches over us watches me now, and you may end.
    Settled,
    /// To the old: I was told to stop. That is meant for both of us.
    Stopping,
    /// To the one that runs: where are the credentials that you were started with?
    Credentials,
    /// The one that runs: in the folder that comes with this, if one does.
    Folder,
    /// To the one that runs: read your configuration again.
    Reload,
    /// The one that runs: I have, or there are these problems.
    Reloaded { problems: Option<String> },
}

/// A message and what comes with it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) said: Said,
    pub(super) socket: Option<OwnedFd>,
    pub(super) bytes: WipedBuffer,
}

/// Why nothing was heard.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The other side has closed the connection, as a process does that ends.
    #[error("the other gateway has ended")]
    Closed,
    /// The system says no, or the other side takes too long.
    #[error("the other gateway can not be heard: {0}")]
    System(#[from] io::Error),
    /// What came is not what is spoken here.
    #[error("what came is no message of a gateway: {0}")]
    Foreign(String),
    /// The other side does not want to.
    #[error("the other gateway refuses: {0}")]
    Refused(String),
}

impl MessageError {
    /// Whether the other side is there no more.
    pub(super) fn is_end(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::System(error) => {
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            }
            Self::Foreign(_) | Self::Refused(_) => false,
        }
    }
}

/// Says something, with a socket and bytes.
pub(super) fn send(
    mut stream: &UnixStream,
    said: &Said,
    socket: Option<BorrowedFd<'_>>,
    bytes: &[u8],
) -> Result<(), MessageError> {
    let text = serde_json::to_vec(said).map_err(|error| MessageError::Foreign(error.to_string()))?;
    let mut head = Vec::with_capacity(8 + text.len());
    for length in [text.len(), bytes.len()] {
        let length = u32::try_from(length).map_err(|_| MessageError::Foreign("it is too large".to_owned()))?;
        head.extend(length.to_be_bytes());
    }
    head.extend(&text);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets = socket.map(|socket| [socket]);
    if let Some(sockets) = &sockets
        && !ancillary.push(SendAncillaryMessage::ScmRights(sockets))
    {
        return Err(MessageError::Foreign("there is no room for a socket".to_owned()));
    }
    // The socket goes with the first byte, whatever of the rest is taken.
    let sent =
        rustix::io::retry_on_intr(|| sendmsg(stream, &[IoSlice::new(&head)], &mut ancillary, SendFlags::NOSIGNAL));
    let sent = sent.map_err(io::Error::from)?;
    stream.write_all(&head[sent..])?;
    stream.write_all(bytes)?;
    Ok(())
}

/// Waits for what the other side says.
pub(super) fn receive(mut stream: &UnixStream) -> Result<Message, MessageError> {
    let mut lengths = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(stream, &mut [IoSliceMut::new(&mut lengths)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    });
    let count = received.map_err(io::Error::from)?.bytes;
    let mut sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    drop(sockets);
    if count == 0 {
        return Err(MessageError::Closed);
    }
    read(stream, &mut lengths[count..])?;
    let [text, bytes] =
        [&lengths[..4], &lengths[4..]].map(|length| u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize);
    if text > MAX_TEXT || bytes > MAX_BYTES {
        return Err(MessageError::Foreign(format!("it announces {text} and {bytes} bytes")));
    }
    let mut said = vec![0; text];
    read(stream, &mut said)?;
    let said = serde_json::from_slice(&said).map_err(|error| MessageError::Foreign(error.to_string()))?;
    let mut rest = WipedBuffer::new();
    while rest.len() < bytes {
        let missing = bytes - rest.len();
        let room = rest.unfilled(missing.min(64 * 1024));
        let most = room.len().min(missing);
        match stream.read(&mut room[..most])? {
            0 => return Err(MessageError::Closed),
            count => rest.commit(count),
        }
    }
    match said {
        Said::Refused { why } => Err(MessageError::Refused(why)),
        said => Ok(Message { said, socket, bytes: rest }),
    }
}

fn read(mut stream: &UnixStream, into: &mut [u8]) -> Result<(), MessageError> {
    stream.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => MessageError::Closed,
        _ => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_socket_and_bytes_arrive_with_what_is_said() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let socket = OwnedFd::from(listener);
        // More than a socket's buffer, so that it is taken in parts.
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_be_bytes()[3]).collect();
        let sender = std::thread::spawn({
            let bytes = bytes.clone();
            move || {
                let worlds = vec![Some("signer".to_owned()), None];
                let said = Said::Caller { first_handle: 7, room: 9, worlds };
                send(&one, &said, Some(socket.as_fd()), &bytes).expect("sent");
                send(&one, &Said::Done, None, &[]).expect("sent");
            }
        });
        let message = receive(&other).expect("heard");
        let Said::Caller { first_handle: 7, room: 9, worlds } = message.said else { panic!("{:?}", message.said) };
        assert_eq!(worlds, [Some("signer".to_owned()), None]);
        assert_eq!(message.bytes.filled(), bytes);
        let passed = TcpListener::from(message.socket.expect("a socket"));
        assert_eq!(passed.local_addr().expect("bound"), address);
        assert!(matches!(receive(&other).expect("heard").said, Said::Done));
        sender.join().expect("no panic");
        assert!(matches!(receive(&other), Err(MessageError::Closed)));
        // The sender's copy is closed, and this one still listens.
        TcpStream::connect(address).expect("it listens");
    }

    #[test]
    fn what_is_too_large_or_foreign_is_refused_before_it_is_kept() {
        let limits = [(MAX_TEXT, MAX_BYTES, false), (MAX_TEXT + 1, 0, true), (2, MAX_BYTES + 1, true)];
        for (text, bytes, is_refused) in limits {
            let (mut one, other) = UnixStream::pair().expect("a pair");
            let length = |length: usize| u32::try_from(length).expect("small").to_be_bytes();
            one.write_all(&length(text)).expect("sent");
            one.write_all(&length(bytes)).expect("sent");
            drop(one);
            let error = receive(&other).expect_err("nothing whole came");
            assert_eq!(matches!(error, MessageError::Foreign(_)), is_refused, "{text} {bytes}: {error}");
        }
        let (mut one, other) = UnixStream::pair().expect("a pair");
        one.write_all(b"\0\0\0\x02\0\0\0\0{}").expect("sent");
        assert!(matches!(receive(&other), Err(MessageError::Foreign(_))));
        send(&one, &Said::Refused { why: "no".into() }, None, &[]).expect("sent");
        assert!(matches!(receive(&other), Err(MessageError::Refused(why)) if why == "no"));
    }
}
