//! The old gateway's side: answers whoever wants to take over, and gives what it has when that one can take jobs.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::message::{Message, MessageError, Said, receive, send};
use super::{Counts, Leaving, PROTOCOL, Running};
use crate::admin::Board;
use crate::listen::accept::UnixSocket;
use crate::listen::inherited::{Name, Role};

/// How long whoever connects may take to say what it wants, and to hear what it is told.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a new gateway may take from its first word until it can take jobs: it reads its configuration before, and waits a few
/// seconds for machines after.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the new gateway may take to say that it is watched over. The old one ends then all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

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
    /// Set where the socket is another gateway's from now on, and with it its file.
    pub is_given: Arc<AtomicBool>,
}

/// Answers at `listen.handover`.
pub struct Giver {
    held: Arc<[Held]>,
    running: Running,
    board: Arc<Board>,
    counts: Arc<Counts>,
}

/// A new gateway that can take jobs, and waits to be given what this one has.
pub struct Offer {
    stream: UnixStream,
    held: Arc<[Held]>,
    /// Told when it is accepted. Dropped unused, it tells that another one may make an offer.
    is_accepted: Option<oneshot::Sender<()>>,
    /// Who it is.
    pub running: Running,
}

impl Giver {
    /// One that gives these listening sockets.
    ///
    /// # Errors
    /// The system does not say which file this process runs.
    pub fn new(held: Vec<Held>, board: Arc<Board>, counts: Arc<Counts>) -> io::Result<Self> {
        Ok(Self { held: held.into(), running: Running::this()?, board, counts })
    }

    /// Answers one after the other until a new gateway can take jobs, which is told to `offers`. Whoever ends before is forgotten.
    pub async fn run(self, socket: UnixSocket, offers: mpsc::Sender<Offer>) {
        let giver = Arc::new(self);
        loop {
            let stream = match socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a gateway that wants to take over could not be heard");
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
            if uid != 0 && uid != rustix::process::geteuid().as_raw() {
                tracing::warn!(uid, "somebody who is not this gateway's user wanted to take over; nothing was given");
                Counts::add(&giver.counts.failed);
                continue;
            }
            let answering = giver.clone();
            let answered = tokio::task::spawn_blocking(move || answering.answer(stream.into_std()?));
            match answered.await {
                Ok(Ok(Some((offer, accepted)))) => {
                    // Nobody waits for it where the gateway ends anyway.
                    let _ = offers.send(offer).await;
                    if accepted.await.is_ok() {
                        return;
                    }
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    Counts::add(&giver.counts.failed);
                    tracing::warn!(%error, "a gateway that was to take over did not; this one goes on");
                }
                Err(_) => tracing::error!("whoever answers at listen.handover has failed"),
            }
        }
    }

    fn answer(&self, mut stream: UnixStream) -> Result<Option<(Offer, oneshot::Receiver<()>)>, MessageError> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STEP_TIMEOUT))?;
        stream.set_write_timeout(Some(STEP_TIMEOUT))?;
        let running = match receive(&mut stream)?.said {
            Said::Who => {
                send(&mut stream, &Said::Running(self.running.clone()), None, &[])?;
                return Ok(None);
            }
            Said::Hello { protocol: PROTOCOL, running } => running,
            Said::Hello { protocol, .. } => {
                let why = format!("it speaks handover protocol {PROTOCOL} and not {protocol}; restart it instead");
                send(&mut stream, &Said::Refused { why: why.clone() }, None, &[])?;
                return Err(MessageError::Foreign(why));
            }
            other => return Err(MessageError::Foreign(format!("{other:?}"))),
        };
        tracing::info!(pid = running.pid, version = running.version, "another gateway is about to take over");
        for held in self.held.iter() {
            let said = Said::Listener { role: held.role, name: held.name.clone(), is_lent: held.is_lent };
            send(&mut stream, &said, Some(held.socket.as_fd()), &[])?;
        }
        let watchdog = sd_notify::watchdog_enabled().and_then(|period| u64::try_from(period.as_micros()).ok());
        let watchdog_microseconds = watchdog.unwrap_or_default();
        let ready_worlds = self.board.worlds().into_iter().filter_map(|(world, is_ready)| is_ready.then_some(world));
        let welcome = Said::Welcome {
            running: self.running.clone(),
            watchdog_microseconds,
            ready_worlds: ready_worlds.collect(),
        };
        send(&mut stream, &welcome, None, &[])?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        match receive(&mut stream)?.said {
            Said::Ready => {
                stream.set_read_timeout(Some(SETTLE_TIMEOUT))?;
                let (sender, accepted) = oneshot::channel();
                let offer = Offer { stream, held: self.held.clone(), is_accepted: Some(sender), running };
                Ok(Some((offer, accepted)))
            }
            other => Err(MessageError::Foreign(format!("{other:?}"))),
        }
    }
}

impl Offer {
    /// Tells the new gateway that it accepts from now on. Blocks for a moment.
    ///
    /// # Errors
    /// It has ended meanwhile: nothing was given.
    pub fn accept(&mut self) -> Result<(), MessageError> {
        send(&mut self.stream, &Said::Yours, None, &[])?;
        for held in self.held.iter() {
            held.is_given.store(true, Ordering::Relaxed);
        }
        if let Some(is_accepted) = self.is_accepted.take() {
            // Whoever answers may have ended with the gateway.
            let _ = is_accepted.send(());
        }
        Ok(())
    }

    /// Gives each connection that comes, up to `None`, and waits until the new gateway is watched over; returns how many there were.
    /// Blocks.
    ///
    /// # Errors
    /// The new gateway has ended. Connections that come from then on are closed; nothing of them is outstanding.
    pub fn give(mut self, mut leaving: mpsc::UnboundedReceiver<Option<Leaving>>) -> Result<u64, MessageError> {
        let mut given = 0;
        while let Some(next) = leaving.blocking_recv() {
            let Some(Leaving { socket, carried, count }) = next else {
                // Those that are on their way still come.
                leaving.close();
                continue;
            };
            let said = Said::Caller { first_handle: carried.first_handle, room: carried.room, worlds: carried.worlds };
            send(&mut self.stream, &said, Some(socket.as_fd()), carried.unread.filled())?;
            drop(count);
            given += 1;
        }
        send(&mut self.stream, &Said::Done, None, &[])?;
        match receive(&mut self.stream) {
            Ok(Message { said: Said::Settled, .. }) => Ok(given),
            Ok(Message { said, .. }) => Err(MessageError::Foreign(format!("{said:?}"))),
            Err(error) => Err(error),
        }
    }
}
