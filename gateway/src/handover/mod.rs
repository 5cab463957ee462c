//! One gateway takes over from another while callers go on: the new one gets the listening sockets, and later each legacy
//! connection at a moment at which nothing of it is under way. `docs/design/operating.md` has the whole of it.
//!
//! [`Giver`] is the old gateway's side, [`Taker`] the new one's; both are used by [`Gateway`](crate::gateway::Gateway) and `seeway
//! serve`. They speak [messages](message) over the Unix socket `listen.handover`.

mod giver;
mod message;
mod taker;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use seeway_proto::wiped::WipedBuffer;
use serde::{Deserialize, Serialize};

use crate::listen::hardserver::Socket;
use crate::shard::CallerCount;

pub use giver::{Asked, Given, Giver, Heard, Held, Offer, Successor};
pub use message::MessageError;
pub use taker::{Arrived, STEP_TIMEOUT, Taker, Yours, ask_for_credentials, ask_to_reload, ask_who};

/// What both sides speak. A gateway of another number is not taken over from; fields may be added without changing it.
const PROTOCOL: u32 = 2;

/// Which program runs, and as which process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The file that it was started from, by device and inode: a file that is replaced has another one.
    pub binary: (u64, u64),
}

impl Running {
    /// This process.
    ///
    /// # Errors
    /// The system does not say which file it runs.
    pub fn this() -> io::Result<Self> {
        let file = std::fs::metadata("/proc/self/exe")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            binary: (file.dev(), file.ino()),
        })
    }
}

/// What operators have taken out of work, and not put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drains {
    /// Whether the whole gateway is drained.
    #[serde(default)]
    pub gateway: bool,
    /// The names of the machines that are.
    #[serde(default)]
    pub machines: Vec<String>,
}

/// What a legacy connection takes along: the handles that its caller has, and what was read of it and not yet served.
#[derive(Debug)]
pub struct Carried {
    /// The number of the first handle.
    pub first_handle: u32,
    /// How many numbers from it on may be given.
    pub room: u32,
    /// Whose handle each number is from the first on; `None` where it may not be used any more.
    pub worlds: Vec<Option<String>>,
    /// The beginning of what it says next.
    pub unread: WipedBuffer,
}

/// A legacy connection that leaves its shard: nothing of it is outstanding, and every answer has been written.
#[derive(Debug)]
pub struct Leaving {
    /// Its socket.
    pub socket: Socket,
    /// What goes along.
    pub carried: Carried,
    /// Its place among the old gateway's callers.
    pub count: CallerCount,
}

/// How takings-over went, for the metrics; and how the one that is going on stands.
#[derive(Debug, Default)]
pub struct Counts {
    /// This gateway has taken over from another one.
    pub taken_over: AtomicU64,
    /// Somebody wanted to take over, and did not.
    pub failed: AtomicU64,
    /// Listening sockets that this gateway got.
    pub listeners: AtomicU64,
    /// Legacy connections that this gateway got.
    pub callers: AtomicU64,
    /// The process of the gateway that connections still come from; 0: none comes any more.
    pub takes_over_from: AtomicU32,
    /// Whether whoever watches over this process watches the one that has taken over from it.
    pub is_watched_elsewhere: AtomicBool,
}

impl Counts {
    pub(crate) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
