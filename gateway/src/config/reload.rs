//! A configuration that is to take a running one's place: what of it can't, and where its machines and worlds stand.
//!
//! A machine's and a world's position is its name to the shards, from which jobs in hand can't be told otherwise. So positions
//! outlast a reload: what the new file keeps stays where it was, what it lacks stays there as retired, and what is new comes at
//! the end.

use std::path::Path;

use super::audit::same;
use super::document::Document;
use super::problem::Gathered;
use super::tls::Tls;
use super::value::{Config, Machine, World};
use super::{Problems, environment};
use crate::trace;

/// Whether a key has the same value in both.
type IsSame = fn(&Config, &Config) -> bool;

/// What only a restart can change: threads, sockets, and what has been agreed on with connections that are open.
const FIXED: &[(&str, &str, IsSame)] = &[
    ("listen", "grpc", |new, running| new.listen.grpc == running.listen.grpc),
    ("listen", "hardserver", |new, running| new.listen.hardserver == running.listen.hardserver),
    ("listen", "upstream_hardserver", |new, running| {
        new.listen.upstream_hardserver == running.listen.upstream_hardserver
    }),
    ("listen", "admin", |new, running| new.listen.admin == running.listen.admin),
    ("listen", "management", |new, running| new.listen.management == running.listen.management),
    ("listen", "handover", |new, running| new.listen.handover == running.listen.handover),
    ("tls", "certificate", |new, running| new.tls.is_some() == running.tls.is_some()),
    ("tls", "handshakes", |new, running| same_of(new.tls.as_ref(), running.tls.as_ref(), |tls| tls.handshakes)),
    ("tls", "peer_handshakes", |new, running| {
        same_of(new.tls.as_ref(), running.tls.as_ref(), |tls| tls.peer_handshakes)
    }),
    ("tls", "max_age", |new, running| same_of(new.tls.as_ref(), running.tls.as_ref(), |tls| tls.max_age)),
    ("management_tls", "certificate", |new, running| new.management_tls.is_some() == running.management_tls.is_some()),
    ("management_tls", "handshakes", |new, running| {
        same_of(new.management_tls.as_ref(), running.management_tls.as_ref(), |tls| tls.handshakes)
    }),
    ("management_tls", "peer_handshakes", |new, running| {
        same_of(new.management_tls.as_ref(), running.management_tls.as_ref(), |tls| tls.peer_handshakes)
    }),
    ("listen", "socket_mode", |new, running| new.listen.socket_mode == running.listen.socket_mode),
    ("listen", "socket_group", |new, running| new.listen.socket_group == running.listen.socket_group),
    ("runtime", "shards", |new, running| new.runtime.shards == running.runtime.shards),
    ("limits", "max_job_bytes", |new, running| new.limits.max_job_bytes == running.limits.max_job_bytes),
    ("limits", "caller_jobs", |new, running| new.limits.caller_jobs == running.limits.caller_jobs),
    ("process", "sandbox", |new, running| new.process.sandbox == running.process.sandbox),
    ("process", "lock_memory", |new, running| new.process.lock_memory == running.process.lock_memory),
    ("process", "user", |new, running| new.process.user == running.process.user),
    ("process", "connect_ports", |new, running| new.process.connect_ports == running.process.connect_ports),
    ("wire", "profile", |new, running| new.wire.profile == running.wire.profile),
    ("audit", "to", |new, running| {
        new.audit.as_ref().map(|audit| &audit.to) == running.audit.as_ref().map(|audit| &audit.to)
    }),
    ("audit", "when_full", |new, running| same(new, running, |audit| &audit.when_full)),
    ("audit", "sync", |new, running| same(new, running, |audit| &audit.must_sync)),
    ("audit", "buffer", |new, running| same(new, running, |audit| &audit.buffer)),
    ("audit", "job_digest", |new, running| same(new, running, |audit| &audit.job_digest)),
    ("audit", "rotate_bytes", |new, running| same(new, running, |audit| &audit.rotate_bytes)),
    ("audit", "key", |new, running| same(new, running, |audit| &audit.key_file)),
    ("trace", "endpoint", |new, running| {
        new.trace.as_ref().map(|trace| &trace.endpoint) == running.trace.as_ref().map(|trace| &trace.endpoint)
    }),
    ("trace", "service_name", |new, running| same_trace(new, running, |trace| &trace.service_name)),
    ("trace", "ca", |new, running| same_trace(new, running, |trace| &trace.ca)),
    ("trace", "authorization", |new, running| same_trace(new, running, |trace| &trace.authorization)),
    ("trace", "timeout", |new, running| same_trace(new, running, |trace| &trace.timeout)),
    ("trace", "interval", |new, running| same_trace(new, running, |trace| &trace.interval)),
    ("trace", "queue", |new, running| same_trace(new, running, |trace| &trace.queue)),
];

/// Whether both have the same traces, as far as `of` says. Traces that begin or end are told by `endpoint`.
fn same_trace<T: PartialEq>(new: &Config, running: &Config, of: fn(&trace::Settings) -> &T) -> bool {
    new.trace.as_ref().zip(running.trace.as_ref()).is_none_or(|(new, running)| of(new) == of(running))
}

/// Whether both have the same value, where both have one.
fn same_of<T: PartialEq>(new: Option<&Tls>, running: Option<&Tls>, value: fn(&Tls) -> T) -> bool {
    new.zip(running).is_none_or(|(new, running)| value(new) == value(running))
}

/// What a problem with a fixed key says. The admin port tells by it that nothing is wrong with the file as such.
pub(super) const NEEDS_RESTART: &str = "can not change while the gateway runs";

impl Config {
    /// Reads a file, as [`load`](Self::load) does, that is to take this running configuration's place.
    ///
    /// # Errors
    /// Everything that is wrong, and every key that only a restart can change.
    pub fn load_again(&self, file: &Path) -> Result<Self, Problems> {
        let text = super::text_of(file)?;
        self.read_again(&text, file, environment::of_process())
    }

    /// Reads a text, as [`read`](Self::read) does, that is to take this running configuration's place.
    ///
    /// # Errors
    /// Everything that is wrong, and every key that only a restart can change.
    pub fn read_again(
        &self,
        text: &str,
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let new = Self::read_and(text, file, environment, |new, document, gathered| {
            note_fixed(new, self, document, gathered);
        })?;
        Ok(new.aligned_with(self))
    }

    /// The same configuration with machines and worlds where `running` has them. What `running` has and this one has not is
    /// retired; what was retired and is there again has its old place.
    #[must_use]
    pub fn aligned_with(mut self, running: &Self) -> Self {
        let positions: Vec<usize> = {
            let mut added = running.machines.len()..;
            let mut place_of = |machine: &Machine| {
                let kept = running.machines.iter().position(|other| other.name == machine.name);
                kept.or_else(|| added.next()).expect("there is always a next number")
            };
            self.machines.iter().map(&mut place_of).collect()
        };
        for world in &mut self.worlds {
            for machine in &mut world.machines {
                *machine = positions[*machine];
            }
        }
        let mut worlds = running.worlds.clone();
        for world in &mut worlds {
            world.is_retired = true;
        }
        put_in_place(&mut worlds, self.worlds, |one: &World, other| one.name == other.name);
        let mut machines = running.machines.clone();
        for machine in &mut machines {
            machine.is_retired = true;
        }
        put_in_place(&mut machines, self.machines, |one: &Machine, other| one.name == other.name);
        self.worlds = worlds;
        self.machines = machines;
        self
    }
}

fn put_in_place<T>(list: &mut Vec<T>, new: Vec<T>, is_same: impl Fn(&T, &T) -> bool) {
    for item in new {
        match list.iter_mut().find(|old| is_same(old, &item)) {
            Some(old) => *old = item,
            None => list.push(item),
        }
    }
}

fn note_fixed(new: &Config, running: &Config, document: &Document, gathered: &mut Gathered) {
    for (table, key, is_same) in FIXED {
        if !is_same(new, running) {
            let section = document.one(table);
            let place = section.given(key).unwrap_or(&section.place);
            gathered.add(place, section.path(key), NEEDS_RESTART, "restart it, or leave this key as it was");
        }
    }
}
