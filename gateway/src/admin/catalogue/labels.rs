//! The labels that metrics have, and where their values come from.

use seeway_proto::outcome::OutcomeKind;

use super::{Label, Values};
use crate::admin::metrics::LIMITS;
use crate::config::NO_MACHINE;
use crate::schedule::{FrontEnd, MachineState};
use crate::shard::TunnelState;

const fn fixed(name: &'static str, values: fn() -> Vec<&'static str>) -> Label {
    Label { name, values: Values::Fixed(values) }
}

pub(super) const WORLD: Label = Label {
    name: "world",
    values: Values::Configured("the `name` of each `[[world]]` that the configuration has now"),
};

pub(super) const MACHINE: Label = Label {
    name: "machine",
    values: Values::Configured(
        "the `name` of each `[[machine]]` that the configuration has now, or that still finishes what it had when the configuration \
         lost it",
    ),
};

/// Of a job: the machine that had it last.
pub(super) const LAST_MACHINE: Label = Label {
    name: "machine",
    values: Values::ConfiguredOr(
        NO_MACHINE,
        "the `name` of each `[[machine]]` of the world, and of others that had jobs of it",
    ),
};

pub(super) const VERSION: Label = Label { name: "version", values: Values::Configured("the program's own") };

pub(super) const LISTENER: Label = fixed("listener", || FrontEnd::ALL.map(FrontEnd::label).to_vec());

/// Where TLS is spoken.
pub(super) const TLS_LISTENER: Label = fixed("listener", || vec!["grpc", "hardserver", "management"]);

/// What TLS goes by, by the name of its key in `[tls]` or `[management_tls]`.
pub(super) const TLS_FILE: Label = fixed("file", || vec!["certificate", "client_ca", "crl"]);

pub(super) const OUTCOME: Label = fixed("outcome", || OutcomeKind::ALL.map(OutcomeKind::label).to_vec());

/// What becomes of a command that is passed on to the hardserver behind Seeway.
pub(super) const PASSED: Label = fixed("outcome", || vec!["replied", "not_sent", "unknown"]);

pub(super) const MACHINE_STATE: Label = fixed("state", || MachineState::ALL.map(MachineState::label).to_vec());

pub(super) const TUNNEL_STATE: Label = fixed("state", || TunnelState::ALL.map(TunnelState::label).to_vec());

/// Keys of `[limits]` that are counts or bytes.
pub(super) const LIMIT: Label = fixed("limit", || LIMITS.iter().map(|(name, _)| *name).collect());

/// Keys of `[limits]` that are times.
pub(super) const LIMIT_SECONDS: Label = fixed("limit", || vec!["hold", "default_timeout", "message_timeout"]);

/// Limits of which it is known how near they are.
pub(super) const NEAR: Label =
    fixed("limit", || vec!["callers", "peer_callers", "pipes", "queue", "queue_bytes", "max_in_flight", "handshakes"]);

pub(super) const HANDSHAKE: Label = fixed("result", || vec!["ok", "failed", "late", "refused"]);

pub(super) const TAKEN: Label = fixed("result", || vec!["ok", "refused"]);

pub(super) const READ: Label = fixed("result", || vec!["ok", "failed"]);

/// What one gateway gets from another.
pub(super) const HANDED_OVER: Label = fixed("kind", || vec!["listener", "caller"]);

/// What becomes of a job's span.
pub(super) const SPANS: Label = fixed("result", || vec!["exported", "dropped", "failed"]);

pub(super) const RECORDED: Label = fixed("result", || vec!["written", "dropped"]);
