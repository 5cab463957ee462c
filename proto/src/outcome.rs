//! What can become of a job, and its name on each wire (the specification's "What can become of a job").
//!
//! The gateway's scheduler makes exactly one [`Outcome`] of every job; its listeners only translate it.

use std::fmt;

use crate::wire::{JobBytes, Profile};

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It ran once; here is its reply.
    Replied(JobBytes<'a>),
    /// It ran, or was refused, inside the machine.
    MachineStatus {
        /// The machine's own status.
        status: u32,
        /// What the machine says about it.
        info: Option<&'a str>,
        /// Whether that status leaves it open that the job ran.
        may_have_run: bool,
    },
    /// It never left the gateway and never will.
    Rejected(Rejected),
    /// It never left the gateway; it could be sent again without risk.
    NotSent(NotSent),
    /// It left, and nobody can say whether it ran.
    Unknown(Unknown),
}

/// Why a job was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// What was asked does not parse.
    Malformed,
    /// No world has this name or handle.
    NoSuchWorld,
    /// This caller may not use the world.
    AccessDenied,
    /// The job is larger than the limit.
    JobTooLarge,
}

/// Why a job was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// The world's queue is full.
    QueueFull,
    /// The caller has as many jobs in hand as it may.
    CallerQuota,
    /// No machine of the world was up for as long as jobs wait for one, or the gateway is stopping.
    NowhereToGo,
    /// The deadline passed while it waited.
    TooLate,
}

/// Why nobody knows what became of a job that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// The tunnel or the channel was lost; no reply can come any more.
    TunnelLost,
    /// The machine died holding it.
    MachineFailed,
    /// The deadline passed before the reply came.
    TooLate,
}

/// The gRPC codes that outcomes have, by their numbers in the gRPC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)] // The names are gRPC's own.
pub enum GrpcCode {
    Ok = 0,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unavailable = 14,
}

/// Reasons, as they stand in a gRPC `ErrorInfo` and in `JobFailure`.
pub mod reason {
    /// The machine's own status.
    pub const MACHINE_STATUS: &str = "MACHINE_STATUS";
    /// What was asked does not parse.
    pub const MALFORMED: &str = "MALFORMED";
    /// No world has this name.
    pub const NO_SUCH_WORLD: &str = "NO_SUCH_WORLD";
    /// This caller may not.
    pub const ACCESS_DENIED: &str = "ACCESS_DENIED";
    /// The job is larger than the limit.
    pub const JOB_TOO_LARGE: &str = "JOB_TOO_LARGE";
    /// The world's queue is full.
    pub const QUEUE_FULL: &str = "QUEUE_FULL";
    /// The caller has as many jobs in hand as it may.
    pub const CLIENT_QUOTA: &str = "CLIENT_QUOTA";
    /// The job never left.
    pub const NOT_SENT: &str = "NOT_SENT";
    /// The job left, and nobody can say whether it ran.
    pub const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
}

impl<'a> Outcome<'a> {
    /// The outcome of a job whose machine answered with an error.
    pub fn of_machine_error(profile: &Profile, status: u32, info: Option<&'a str>) -> Self {
        if status == profile.statuses.see_world_failed {
            return Self::Unknown(Unknown::MachineFailed);
        }
        Self::MachineStatus { status, info, may_have_run: !profile.statuses.says_nothing_ran(status) }
    }

    /// Whether the job may have run. Where this is false it is certain that it did not.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Replied(_) | Self::Unknown(_) => true,
            Self::MachineStatus { may_have_run, .. } => *may_have_run,
            Self::Rejected(_) | Self::NotSent(_) => false,
        }
    }

    /// Its status on the SEEJob wire.
    pub fn status(&self, profile: &Profile) -> u32 {
        let statuses = &profile.statuses;
        match self {
            Self::Replied(_) => statuses.ok,
            Self::MachineStatus { status, .. } => *status,
            Self::Rejected(Rejected::Malformed) => statuses.malformed,
            Self::Rejected(Rejected::NoSuchWorld) => statuses.unknown_id,
            Self::Rejected(Rejected::AccessDenied) => statuses.access_denied,
            Self::Rejected(Rejected::JobTooLarge) => statuses.buffer_full,
            Self::NotSent(NotSent::QueueFull | NotSent::CallerQuota) => statuses.queue_full,
            Self::NotSent(NotSent::NowhereToGo) => statuses.not_available,
            Self::NotSent(NotSent::TooLate) | Self::Unknown(Unknown::TooLate) => statuses.timeout,
            Self::Unknown(Unknown::TunnelLost) => statuses.network_error,
            Self::Unknown(Unknown::MachineFailed) => statuses.see_world_failed,
        }
    }

    /// Its errorinfo on the SEEJob wire.
    pub fn errorinfo(&self) -> Option<&'a str> {
        match self {
            Self::Replied(_) => None,
            Self::MachineStatus { info, .. } => *info,
            Self::Rejected(Rejected::NoSuchWorld) => Some("no such world"),
            Self::NotSent(NotSent::TooLate) => Some("not sent"),
            Self::Unknown(Unknown::TooLate) => Some("outcome unknown"),
            Self::Rejected(_) | Self::NotSent(_) | Self::Unknown(_) => Some(self.message()),
        }
    }

    /// Its gRPC code. UNAVAILABLE, which clients and proxies retry by themselves, only ever says that the job did not run.
    pub fn grpc_code(&self) -> GrpcCode {
        match self {
            Self::Replied(_) => GrpcCode::Ok,
            Self::MachineStatus { .. } => GrpcCode::FailedPrecondition,
            Self::Rejected(Rejected::Malformed) => GrpcCode::InvalidArgument,
            Self::Rejected(Rejected::NoSuchWorld) => GrpcCode::NotFound,
            Self::Rejected(Rejected::AccessDenied) => GrpcCode::PermissionDenied,
            Self::Rejected(Rejected::JobTooLarge) => GrpcCode::OutOfRange,
            Self::NotSent(NotSent::QueueFull | NotSent::CallerQuota) => GrpcCode::ResourceExhausted,
            Self::NotSent(NotSent::NowhereToGo) => GrpcCode::Unavailable,
            Self::NotSent(NotSent::TooLate) | Self::Unknown(Unknown::TooLate) => GrpcCode::DeadlineExceeded,
            Self::Unknown(Unknown::TunnelLost | Unknown::MachineFailed) => GrpcCode::Unknown,
        }
    }

    /// Its reason, for programs; empty for a reply.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Replied(_) => "",
            Self::MachineStatus { .. } => reason::MACHINE_STATUS,
            Self::Rejected(Rejected::Malformed) => reason::MALFORMED,
            Self::Rejected(Rejected::NoSuchWorld) => reason::NO_SUCH_WORLD,
            Self::Rejected(Rejected::AccessDenied) => reason::ACCESS_DENIED,
            Self::Rejected(Rejected::JobTooLarge) => reason::JOB_TOO_LARGE,
            Self::NotSent(NotSent::QueueFull) => reason::QUEUE_FULL,
            Self::NotSent(NotSent::CallerQuota) => reason::CLIENT_QUOTA,
            Self::NotSent(NotSent::NowhereToGo | NotSent::TooLate) => reason::NOT_SENT,
            Self::Unknown(_) => reason::OUTCOME_UNKNOWN,
        }
    }

    /// What happened and what to do, for people.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Replied(_) => "it ran; this is its reply",
            Self::MachineStatus { .. } => "the machine answered with a status of its own",
            Self::Rejected(Rejected::Malformed) => "the request does not parse; nothing ran",
            Self::Rejected(Rejected::NoSuchWorld) => "no such world; nothing ran",
            Self::Rejected(Rejected::AccessDenied) => "this caller may not use the world; nothing ran",
            Self::Rejected(Rejected::JobTooLarge) => "the job is larger than the limit; nothing ran",
            Self::NotSent(NotSent::QueueFull) => "the world's queue is full; nothing ran, try again later",
            Self::NotSent(NotSent::CallerQuota) => {
                "this caller has as many jobs in hand as it may; nothing ran, try again later"
            }
            Self::NotSent(NotSent::NowhereToGo) => {
                "no machine of the world could take the job; nothing ran, try again later"
            }
            Self::NotSent(NotSent::TooLate) => "the deadline passed before the job could be sent; nothing ran",
            Self::Unknown(Unknown::TunnelLost) => "the tunnel was lost after the job had left; it may have run",
            Self::Unknown(Unknown::MachineFailed) => "the machine failed while it held the job; it may have run",
            Self::Unknown(Unknown::TooLate) => "the deadline passed after the job had left; it may have run",
        }
    }

    /// Its row in the table of outcomes: the label under which it is counted.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Replied(_) => OutcomeKind::Replied,
            Self::MachineStatus { .. } => OutcomeKind::MachineStatus,
            Self::Rejected(_) => OutcomeKind::Rejected,
            Self::NotSent(NotSent::QueueFull) => OutcomeKind::NotSentQueueFull,
            Self::NotSent(NotSent::CallerQuota) => OutcomeKind::NotSentCallerQuota,
            Self::NotSent(NotSent::NowhereToGo) => OutcomeKind::NotSentNowhereToGo,
            Self::NotSent(NotSent::TooLate) => OutcomeKind::NotSentTooLate,
            Self::Unknown(Unknown::TunnelLost) => OutcomeKind::UnknownTunnelLost,
            Self::Unknown(Unknown::MachineFailed) => OutcomeKind::UnknownMachineFailed,
            Self::Unknown(Unknown::TooLate) => OutcomeKind::UnknownTooLate,
        }
    }
}

/// A row of the table of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Each is a row of the specification's table.
pub enum OutcomeKind {
    Replied,
    MachineStatus,
    Rejected,
    NotSentQueueFull,
    NotSentCallerQuota,
    NotSentNowhereToGo,
    NotSentTooLate,
    UnknownTunnelLost,
    UnknownMachineFailed,
    UnknownTooLate,
}

impl OutcomeKind {
    /// All rows, in the table's order.
    pub const ALL: [Self; 10] = [
        Self::Replied,
        Self::MachineStatus,
        Self::Rejected,
        Self::NotSentQueueFull,
        Self::NotSentCallerQuota,
        Self::NotSentNowhereToGo,
        Self::NotSentTooLate,
        Self::UnknownTunnelLost,
        Self::UnknownMachineFailed,
        Self::UnknownTooLate,
    ];

    /// The row's name as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Replied => "replied",
            Self::MachineStatus => "machine_status",
            Self::Rejected => "rejected",
            Self::NotSentQueueFull => "not_sent_queue_full",
            Self::NotSentCallerQuota => "not_sent_caller_quota",
            Self::NotSentNowhereToGo => "not_sent_nowhere_to_go",
            Self::NotSentTooLate => "not_sent_too_late",
            Self::UnknownTunnelLost => "unknown_tunnel_lost",
            Self::UnknownMachineFailed => "unknown_machine_failed",
            Self::UnknownTooLate => "unknown_too_late",
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
