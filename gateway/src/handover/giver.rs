//! The old gateway's side: answers whoever wants to take over, and gives what it has when that one can take jobs.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::message::{Message, MessageError, Said, receive, send};
use super::{Counts, Drains, Leaving, PROTOCOL, Running};
use crate::admin::Control;
use crate::audit::Audit;
use crate::credentials;
use crate::listen::accept::{SocketFile, UnixSocket};
use crate::listen::inherited::{Inherited, InheritedSocket, Name, Role};
use crate::seldom::{Seldom, Tell};

/// How long whoever connects may take to say what it wants, and to hear what it is told.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a new gateway may take from its first word until it can take jobs: it reads its configuration before, and waits a few
/// seconds for machines after.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long nobody is asked after the system has refused a connection.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// A listening socket as it can be given to another gateway.
#[derive(Debug)]
pub struct Held {
    /// What it is for.
    pub role: Role,
    /// Where it listens, as the configuration says it.
    pub name: Name,
    /// The socket.
    pub socket: OwnedFd,
    /// Whether its file is somebody else's, who removes it.
    pub is_lent: bool,
    /// Its file, where it is a Unix socket: another gateway's when that has the socket.
    pub file: Option<Arc<SocketFile>>,
}

/// Answers at `listen.handover`.
pub struct Giver {
    held: Arc<[Held]>,
    running: Running,
    control: Arc<Control>,
    /// How often systemd wants to hear of the unit's main process, where it does.
    watchdog: Option<Duration>,
    /// The folder of the service's credentials, where there is one.
    credentials: Option<OwnedFd>,
}

/// What somebody asks of this gateway who may.
pub enum Asked {
    /// To leave its place to a new gateway.
    TakeOver(Offer),
    /// To read its configuration again, and to say which problems there were, if any.
    Reload(oneshot::Sender<Option<String>>),
}

/// A new gateway that can take jobs, and waits to be given what this one has. Dropped unaccepted, it is told that there is nothing.
pub struct Offer {
    stream: Arc<UnixStream>,
    held: Arc<[Held]>,
    /// Told when it is accepted. Dropped unused, it tells that another one may make an offer.
    is_accepted: Option<oneshot::Sender<()>>,
    audit: Option<Arc<Audit>>,
    /// What it has renamed this gateway's audit log to.
    audit_aside: Option<PathBuf>,
    /// Who it is.
    pub running: Running,
}

/// The new gateway once it accepts callers.
#[derive(Clone)]
pub struct Successor {
    /// Closed with the last handle, and so at the end of this process: that one waits for it.
    stream: Arc<UnixStream>,
    held: Arc<[Held]>,
    audit_aside: Option<PathBuf>,
}

/// What a new gateway says while it is given connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Whoever watches over the two watches it.
    Settled,
    /// It was told to stop, and this one with it.
    Stopping,
}

/// How giving went.
pub struct Given {
    /// How many connections the new gateway has got.
    pub callers: u64,
    /// Why it did not get more, if it has not got all.
    pub error: Option<MessageError>,
    /// The one that it did not get any more.
    pub unsent: Option<Leaving>,
    /// Those that came after that.
    pub rest: mpsc::UnboundedReceiver<Option<Leaving>>,
}

impl Giver {
    /// One that gives these listening sockets.
    ///
    /// # Errors
    /// The system does not say which file this process runs.
    pub fn new(held: Vec<Held>, control: Arc<Control>, watchdog: Option<Duration>) -> io::Result<Self> {
        let credentials = credentials::folder();
        Ok(Self { held: held.into(), running: Running::this()?, control, watchdog, credentials })
    }

    /// Answers one after the other until a new gateway has this one's place. What they ask is told to `asked`; whoever ends before is
    /// forgotten.
    pub async fn run(self, socket: UnixSocket, asked: mpsc::Sender<Asked>) {
        let giver = Arc::new(self);
        loop {
            let stream = match socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    static NOT_HEARD: Seldom = Seldom::new("a gateway that wants to take over could not be heard");
                    if let Some(Tell { untold }) = NOT_HEARD.tell("") {
                        tracing::warn!(%error, untold, "a gateway that wants to take over could not be heard");
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
            if uid != 0 && uid != rustix::process::geteuid().as_raw() {
                // Not a failed upgrade, but somebody who may not even come here.
                static STRANGER: Seldom = Seldom::new("somebody who is not this gateway's user was at listen.handover");
                if let Some(Tell { untold }) = STRANGER.tell("") {
                    tracing::warn!(
                        uid,
                        untold,
                        "somebody who is not this gateway's user was at listen.handover; nothing was given"
                    );
                }
                continue;
            }
            let (answering, asked) = (giver.clone(), asked.clone());
            match tokio::task::spawn_blocking(move || answering.answer(&stream.into_std()?.into(), &asked)).await {
                Ok(Ok(has_left)) => {
                    if has_left {
                        return;
                    }
                }
                Ok(Err(error)) => {
                    Counts::add(&giver.control.handovers().failed);
                    tracing::warn!(%error, "a gateway that was to take over did not; this one goes on");
                }
                Err(_) => tracing::error!("whoever answers at listen.handover has failed"),
            }
        }
    }

    /// Answers one; returns whether it has this gateway's place now. Blocks.
    fn answer(&self, stream: &Arc<UnixStream>, asked: &mpsc::Sender<Asked>) -> Result<bool, MessageError> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        stream.set_write_timeout(Some(STEP_TIMEOUT))?;
        let said = match receive(stream) {
            Ok(message) => message.said,
            Err(error) => {
                // Nobody has wanted to take over: another version may know other words.
                tracing::warn!(%error, "what came at listen.handover was not understood");
                return Ok(false);
            }
        };
        let running = match said {
            Said::Who => {
                send(stream, &Said::Running(self.running.clone()), None, &[])?;
                return Ok(false);
            }
            Said::Credentials => {
                let pid = rustix::net::sockopt::socket_peercred(stream).ok().map(|peer| peer.pid.as_raw_nonzero());
                tracing::info!(pid, "the folder of the credentials is lent, for another gateway to take over");
                send(stream, &Said::Folder, self.credentials.as_ref().map(OwnedFd::as_fd), &[])?;
                return Ok(false);
            }
            Said::Reload => {
                let (sender, reloaded) = oneshot::channel();
                // Where the gateway ends it does neither, and whoever asked sees the connection's end.
                if asked.blocking_send(Asked::Reload(sender)).is_ok()
                    && let Ok(problems) = reloaded.blocking_recv()
                {
                    send(stream, &Said::Reloaded { problems }, None, &[])?;
                }
                return Ok(false);
            }
            Said::Hello { protocol: PROTOCOL, running } => running,
            Said::Hello { protocol, .. } => {
                let why = format!("it speaks handover protocol {PROTOCOL} and not {protocol}; restart it instead");
                send(stream, &Said::Refused { why: why.clone() }, None, &[])?;
                return Err(MessageError::Foreign(why));
            }
            other => return Err(MessageError::Foreign(format!("{other:?}"))),
        };
        let before = self.control.handovers().takes_over_from.load(Ordering::Relaxed);
        if before != 0 {
            // What still comes from there would reach nobody.
            let why = format!("it still takes callers over from process {before}; try again when that has ended");
            tracing::info!(pid = running.pid, why, "another gateway wants to take over, and has to wait");
            send(stream, &Said::Refused { why }, None, &[])?;
            return Ok(false);
        }
        tracing::info!(pid = running.pid, version = running.version, "another gateway is about to take over");
        for held in self.held.iter() {
            let said = Said::Listener { role: held.role, name: held.name.clone(), is_lent: held.is_lent };
            send(stream, &said, Some(held.socket.as_fd()), &[])?;
        }
        let watchdog = self.watchdog.and_then(|period| u64::try_from(period.as_micros()).ok());
        let watchdog_microseconds = watchdog.unwrap_or_default();
        let ready_worlds =
            self.control.board().worlds().into_iter().filter_map(|(world, is_ready)| is_ready.then_some(world));
        let welcome = Said::Welcome {
            running: self.running.clone(),
            watchdog_microseconds,
            ready_worlds: ready_worlds.collect(),
            drains: self.control.drains(),
        };
        send(stream, &welcome, None, &[])?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        let ready = receive(stream).and_then(|message| match message.said {
            Said::Ready { audit_aside } => Ok(audit_aside),
            other => Err(MessageError::Foreign(format!("{other:?}"))),
        });
        // Said in any case: a connection that only ends is that of a gateway that has ended.
        let audit_aside = ready.inspect_err(|error| refuse(stream, &error.to_string()))?;
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        let (sender, accepted) = oneshot::channel();
        let offer = Offer {
            stream: stream.clone(),
            held: self.held.clone(),
            is_accepted: Some(sender),
            audit: self.control.audit().cloned(),
            audit_aside,
            running,
        };
        // Nobody waits for it where the gateway ends anyway.
        let _ = asked.blocking_send(Asked::TakeOver(offer));
        Ok(accepted.blocking_recv().is_ok())
    }
}

impl Offer {
    /// Has the new gateway accept callers, and keep out of work what is; returns when it does. Blocks for a moment, in which both accept.
    ///
    /// # Errors
    /// It has ended meanwhile, or says nothing: nothing was given.
    pub fn accept(mut self, drains: Drains) -> Result<Successor, MessageError> {
        let accepted = self.until_open(drains).and_then(|()| self.leave());
        if let Err(error) = &accepted
            && error.is_end()
            && let (Some(audit), Some(aside)) = (&self.audit, self.audit_aside.take())
        {
            // One that lives does it itself.
            audit.back_from(aside);
        }
        accepted
    }

    fn until_open(&self, drains: Drains) -> Result<(), MessageError> {
        send(&self.stream, &Said::Yours { drains }, None, &[])?;
        match receive(&self.stream)?.said {
            Said::Opened => Ok(()),
            other => Err(MessageError::Foreign(format!("{other:?}"))),
        }
    }

    fn leave(&mut self) -> Result<Successor, MessageError> {
        // Before that one looks whether they are there: a gateway that is stopped at this moment removes what is its own.
        let files = self.held.iter().filter_map(|held| held.file.as_ref());
        let given: Vec<_> = files.map(|file| (file, file.give())).collect();
        if let Err(error) = send(&self.stream, &Said::Alone, None, &[]) {
            for (file, before) in given {
                file.keep(before);
            }
            return Err(error);
        }
        if let Some(is_accepted) = self.is_accepted.take() {
            // Whoever answers may have ended with the gateway.
            let _ = is_accepted.send(());
        }
        let (stream, held) = (self.stream.clone(), self.held.clone());
        Ok(Successor { stream, held, audit_aside: self.audit_aside.take() })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if self.is_accepted.is_some() {
            refuse(&self.stream, "the running gateway is being stopped, or did not hear from this one in time");
        }
    }
}

/// Tells one that it gets nothing.
fn refuse(stream: &UnixStream, why: &str) {
    // It may have ended.
    let _ = send(stream, &Said::Refused { why: why.to_owned() }, None, &[]);
}

impl Successor {
    /// Gives each connection that comes, up to `None`. Blocks.
    pub fn give(&self, mut leaving: mpsc::UnboundedReceiver<Option<Leaving>>) -> Given {
        let mut callers = 0;
        while let Some(next) = leaving.blocking_recv() {
            let Some(mut gone) = next else {
                // Those that are on their way still come.
                leaving.close();
                continue;
            };
            let said = Said::Caller {
                first_handle: gone.carried.first_handle,
                room: gone.carried.room,
                worlds: std::mem::take(&mut gone.carried.worlds),
            };
            let sent = send(&self.stream, &said, Some(gone.socket.as_fd()), gone.carried.unread.filled());
            if let Err(error) = sent {
                if let Said::Caller { worlds, .. } = said {
                    gone.carried.worlds = worlds;
                }
                return Given { callers, error: Some(error), unsent: Some(gone), rest: leaving };
            }
            callers += 1;
        }
        let error = send(&self.stream, &Said::Done, None, &[]).err();
        Given { callers, error, unsent: None, rest: leaving }
    }

    /// Tells `heard` what the new gateway says, until it ends; then `heard` is dropped. Blocks.
    pub fn listen(&self, heard: &mpsc::Sender<Heard>) {
        // It has nothing to say as long as all is well.
        if self.stream.set_read_timeout(None).is_err() {
            return;
        }
        loop {
            let said = match receive(&self.stream) {
                Ok(Message { said: Said::Settled, .. }) => Heard::Settled,
                Ok(Message { said: Said::Stopping, .. }) => Heard::Stopping,
                // It has ended, or is none that can be trusted with callers.
                Ok(_) | Err(_) => return,
            };
            if heard.blocking_send(said).is_err() {
                return;
            }
        }
    }

    /// Nothing more is said, and whoever [listens](Self::listen) ends.
    pub fn hang_up(&self) {
        // It may have ended.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// What it has renamed this gateway's audit log to, if it has.
    pub fn audit_aside(&self) -> Option<&PathBuf> {
        self.audit_aside.as_ref()
    }

    /// The listening sockets, for this gateway to accept at again.
    ///
    /// # Errors
    /// There is no file descriptor left.
    pub fn inherited(&self) -> io::Result<Inherited> {
        let mut inherited = Inherited::default();
        for held in self.held.iter() {
            let (role, name, is_lent) = (Some(held.role), held.name.clone(), held.is_lent);
            inherited.add(InheritedSocket { role, name, socket: held.socket.try_clone()?, is_lent });
        }
        Ok(inherited)
    }
}
