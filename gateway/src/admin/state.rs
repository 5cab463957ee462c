//! What `GET /api/state` says: the whole gateway at one moment, as one JSON object. The console and `seeway top` show it.
//!
//! These structs are its fields, and are read back by the programs of this crate that show them. Numbers are in base units:
//! seconds, bytes, and times in seconds since 1970. Fields may be added; those that are here keep their meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::percentiles::Percentiles;

/// The whole gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The gateway's version.
    pub version: String,
    /// When this was so.
    pub time: f64,
    /// Over how long rates (`…_per_second`) were taken; 0 where this is the first sample: then they are all 0.
    pub interval: f64,
    /// Whether `/readyz` says 200.
    pub ready: bool,
    /// Why it is not ready, and which worlds are not.
    pub reasons: Vec<String>,
    /// Whether the gateway takes no new jobs, because an operator wants it or it is stopping.
    pub draining: bool,
    /// Threads of the data plane.
    pub shards: usize,
    /// All jobs.
    pub jobs: Jobs,
    /// In the configuration's order.
    pub worlds: Vec<World>,
    /// In the configuration's order; and those that it has no more and that still have jobs.
    pub machines: Vec<Machine>,
    /// Who sends jobs.
    pub callers: Callers,
    /// What is limited, and how near it is.
    pub limits: Vec<Limit>,
    /// The process.
    pub process: Process,
}

/// Jobs of all worlds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Jobs {
    /// Queued, or sent and waited for.
    pub in_hand: usize,
    /// That wait for a channel.
    pub queued: usize,
    /// Sent and unanswered, waited for or not.
    pub in_flight: usize,
    /// That ended.
    pub per_second: f64,
    /// That ended without an answer of a machine.
    pub failed_per_second: f64,
    /// From a job's admission to its outcome, over the last ten seconds; null where none ended.
    pub seconds: Option<Percentiles>,
    /// From when a job was handed to a channel to its reply, over the last ten seconds; null where none was replied to.
    pub machine_seconds: Option<Percentiles>,
}

/// One world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct World {
    /// Its name.
    pub name: String,
    /// Whether it can take a job, had the gateway not been drained.
    pub ready: bool,
    /// Why not: what is wrong with each of its machines.
    pub reason: Option<String>,
    /// The names of its machines.
    pub machines: Vec<String>,
    /// Jobs that wait for a channel.
    pub queued: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Jobs that ended.
    pub jobs_per_second: f64,
    /// Jobs that ended without an answer of a machine.
    pub failed_per_second: f64,
    /// By what became of them: the labels of the outcomes' table. One that never was is left out.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Jobs that were sent again, since the start.
    pub retries: u64,
    /// Jobs that were not sent again because of the retry budget, since the start.
    pub retries_refused: u64,
    /// Bytes of the jobs that ended, since the start.
    pub job_bytes: u64,
    /// Bytes of the replies that they had, since the start.
    pub reply_bytes: u64,
    /// From a job's admission to its outcome, over the last ten seconds; null where none ended.
    pub seconds: Option<Percentiles>,
    /// From a job's admission to when it was last handed to a channel, over the last ten seconds; null where no job ended.
    pub queue_seconds: Option<Percentiles>,
}

/// Jobs that ended in one way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Since the start.
    pub total: u64,
    /// Now.
    pub per_second: f64,
}

/// One machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_field_names)] // They are what programs read.
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its SSH server.
    pub address: String,
    /// The names of the worlds that send to it.
    pub worlds: Vec<String>,
    /// The worst of what it is to the shards: `draining`, `down`, `ejected`, `probing`, `starting` or `ready`.
    pub state: String,
    /// On how many shards it is in which state; states that it is in on none are left out.
    pub states: BTreeMap<String, usize>,
    /// Whether an operator takes it out, or the configuration has it no more.
    pub draining: bool,
    /// Why its last tunnel or channel is not up; null where one has come up since.
    pub trouble: Option<Happening>,
    /// How much has happened to it since the start: where this has grown, its history has more.
    pub happenings: u64,
    /// Jobs sent and unanswered.
    pub in_flight: usize,
    /// The most that it may have.
    pub max_in_flight: usize,
    /// SEEJob streams that are up.
    pub channels: usize,
    /// Tunnels by state: `connecting`, `ready`, `draining`, `backing_off`, `refused`.
    pub tunnels: BTreeMap<String, usize>,
    /// Tunnels that were made, since the start.
    pub tunnels_made: u64,
    /// Connects that failed, since the start.
    pub connects_failed: u64,
    /// Connects that were refused, since the start.
    pub tunnels_refused: u64,
    /// Channels that the SSH server's policy forbade, since the start.
    pub channels_prohibited: u64,
    /// Key exchanges on tunnels that stood already, since the start.
    pub rekeys: u64,
    /// How often it was ejected, since the start.
    pub ejections: u64,
    /// Replies that nobody waited for any more, since the start.
    pub late_replies: u64,
    /// Jobs that it answered.
    pub jobs_per_second: f64,
    /// From when a job was handed to a channel to its reply, over the last ten seconds; null where none was replied to.
    pub machine_seconds: Option<Percentiles>,
    /// Round trips of the tunnels' keepalives, over the last five minutes; null where none came back.
    pub keepalive_seconds: Option<Percentiles>,
}

/// Something that has happened to a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Happening {
    /// When.
    pub time: f64,
    /// Where: the shard; null for what happens on all of them.
    pub shard: Option<usize>,
    /// What: `tunnel_up`, `tunnel_lost`, `connect_failed`, `refused`, `tunnel_drains`, `channel_failed`, `channel_forbidden`,
    /// `channel_lost`, `ejected`, `trusted`, `drained`, `resumed` or `reloaded`.
    pub what: String,
    /// More of it, as the log has it; may be empty.
    pub text: String,
}

/// Who sends jobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Callers {
    /// Connections at the hardserver front end.
    pub hardserver: usize,
    /// Connections and streams at the gRPC front end.
    pub grpc: usize,
    /// Of the first, those that are not read from because one of their limits is reached.
    pub hardserver_paused: usize,
    /// Streams that are not read from because one of their limits is reached.
    pub grpc_paused: usize,
    /// Those with the most to do, the busiest first; at most 32.
    pub busiest: Vec<Caller>,
}

/// One caller: a legacy connection, a gRPC connection with its unary calls, or a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caller {
    /// Its name, as rules know it.
    pub who: String,
    /// How it showed that: `anonymous`, `certificate`, `token` or `unix_user`.
    pub by: String,
    /// `grpc`, `hardserver_tcp`, `hardserver_unix` or `hardserver_tls`.
    pub listener: String,
    /// Its address or process; null where the system does not say.
    pub from: Option<String>,
    /// Jobs in hand.
    pub jobs: usize,
    /// Of these, those that wait.
    pub queued: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Jobs that it hands over.
    pub jobs_per_second: f64,
}

/// A limit, and how near it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_field_names)] // As above.
pub struct Limit {
    /// Its key in the configuration: `callers`, `pipes`, `queue`, `queue_bytes`, `max_in_flight` or `handshakes`; or `open_files`, which
    /// is the system's.
    pub limit: String,
    /// The fullest world or machine, where the limit is for each.
    pub of: Option<String>,
    /// What is used of it.
    pub used: usize,
    /// The most.
    pub max: usize,
    /// One by the other, 0 to 1; above 1 after the limit was lowered.
    pub ratio: f64,
}

/// The process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When the gateway was started.
    pub started: f64,
    /// For how long it has run.
    pub uptime: f64,
    /// Processor time that it has taken; null where the system does not say, here and below.
    pub cpu_seconds: Option<f64>,
    /// Memory that it has.
    pub resident_bytes: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Files, sockets and pipes that it has open.
    pub open_files: Option<u64>,
    /// The most that it may; null where there is no limit.
    pub max_open_files: Option<u64>,
}

/// What `GET /readyz` says to whoever accepts `application/json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether the gateway does not drain and a world can take a job.
    pub ready: bool,
    /// Why not, and which worlds are not.
    pub reasons: Vec<String>,
    /// Each world.
    pub worlds: Vec<WorldReadiness>,
}

/// One world's part of [`Readiness`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorldReadiness {
    /// Its name.
    pub world: String,
    /// Whether it can take a job, had the gateway not been drained.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
}
