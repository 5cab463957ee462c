//! What one identity may do: its rules, looked up once and kept by world, so that a job asks no rule.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{Action, Allowed, Identity, Means, Quota, Rule};
use crate::config::Config;
use crate::schedule::WorldId;

/// What one identity may do under one configuration.
#[derive(Debug)]
pub struct Standing {
    identity: Identity,
    /// By [`WorldId`].
    worlds: Vec<OfWorld>,
    may_use_hardserver: bool,
}

/// What it may do to one world.
#[derive(Debug, Default)]
struct OfWorld {
    submit: Submit,
    may_pipe: bool,
}

/// Whether it may submit.
#[derive(Clone, Debug, Default)]
pub enum Submit {
    /// It may not.
    #[default]
    Denied,
    /// As much as the gateway's own limits.
    Free,
    /// As much as this allows.
    Counted(Arc<Quota>),
}

impl Standing {
    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it may submit to a world.
    pub fn submit(&self, world: WorldId) -> &Submit {
        self.worlds.get(world.0).map_or(&Submit::Denied, |world| &world.submit)
    }

    /// Whether it may open pipes to a world.
    pub fn may_pipe(&self, world: WorldId) -> bool {
        self.worlds.get(world.0).is_some_and(|world| world.may_pipe)
    }

    /// Whether it may know that a world is there.
    pub fn may_see(&self, world: WorldId) -> bool {
        self.may_pipe(world) || !matches!(self.submit(world), Submit::Denied)
    }

    /// Whether it may send commands to the hardserver behind this gateway.
    pub fn may_use_hardserver(&self) -> bool {
        self.may_use_hardserver
    }

    /// Whether it may do nothing at all.
    pub fn is_nobody(&self) -> bool {
        !self.may_use_hardserver && (0..self.worlds.len()).all(|world| !self.may_see(WorldId(world)))
    }
}

/// Makes standings, and keeps the quotas that they share: those of one identity under one rule are the same counters on all shards,
/// and after a reload.
#[derive(Debug)]
pub struct Access {
    began: Instant,
    quotas: Mutex<Quotas>,
}

#[derive(Debug, Default)]
struct Quotas {
    /// By the rule's name, and whose it is. Groups are no part of that: a token's may change with each token.
    all: HashMap<(String, Means, String), Arc<Quota>>,
    /// How many there may be before those that are not used any more are looked for. One whose caller has gone is kept while it
    /// is used up: coming back must not fill it again.
    next_sweep: usize,
}

/// Below this many quotas nobody looks for unused ones.
const LEAST_SWEEP: usize = 1024;

impl Access {
    /// With nothing counted. `now` is the beginning of the quotas' clock.
    pub fn new(now: Instant) -> Arc<Self> {
        let quotas = Mutex::new(Quotas { all: HashMap::new(), next_sweep: LEAST_SWEEP });
        Arc::new(Self { began: now, quotas })
    }

    /// The time as quotas take it.
    pub fn clock(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// What an identity may do under a configuration.
    pub fn standing(&self, now: Instant, config: &Config, identity: Identity) -> Arc<Standing> {
        let rules = &config.permissions;
        let worlds = config.worlds.iter().map(|world| OfWorld {
            submit: match rules.allow(&identity, Action::Submit, Some(&world.name)) {
                None => Submit::Denied,
                Some(Allowed::By(rule)) if !rule.quota.is_none() => Submit::Counted(self.quota(now, rule, &identity)),
                Some(_) => Submit::Free,
            },
            may_pipe: rules.allow(&identity, Action::Pipe, Some(&world.name)).is_some(),
        });
        let worlds = worlds.collect();
        let may_use_hardserver = rules.allow(&identity, Action::Hardserver, None).is_some();
        Arc::new(Standing { identity, worlds, may_use_hardserver })
    }

    fn quota(&self, now: Instant, rule: &Rule, identity: &Identity) -> Arc<Quota> {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (rule.name.clone(), identity.means(), identity.name().to_owned());
        if let Some(quota) = quotas.all.get(&key) {
            quota.set(rule.quota);
            return quota.clone();
        }
        if quotas.all.len() >= quotas.next_sweep {
            let now = self.clock(now);
            quotas.all.retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.is_unused(now));
            quotas.next_sweep = (2 * quotas.all.len()).max(LEAST_SWEEP);
        }
        let quota = Arc::new(Quota::new(rule.quota));
        quotas.all.insert(key, quota.clone());
        quota
    }
}

/// The standings of a shard's callers, made once for each identity and configuration.
#[derive(Debug)]
pub struct Standings {
    access: Arc<Access>,
    config: Arc<Config>,
    known: HashMap<Identity, Weak<Standing>>,
    next_sweep: usize,
}

impl Standings {
    /// Under a configuration.
    pub fn new(access: Arc<Access>, config: Arc<Config>) -> Self {
        Self { access, config, known: HashMap::new(), next_sweep: LEAST_SWEEP }
    }

    /// Under another configuration from now on. Standings that were given out are those of the old one.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.config = config;
        self.known.clear();
    }

    /// What an identity may do.
    pub fn of(&mut self, now: Instant, identity: &Identity) -> Arc<Standing> {
        if let Some(standing) = self.known.get(identity).and_then(Weak::upgrade) {
            return standing;
        }
        if self.known.len() >= self.next_sweep {
            self.known.retain(|_, standing| standing.strong_count() > 0);
            self.next_sweep = (2 * self.known.len()).max(LEAST_SWEEP);
        }
        let standing = self.access.standing(now, &self.config, identity.clone());
        self.known.insert(identity.clone(), Arc::downgrade(&standing));
        standing
    }

    /// Whether anybody may be denied anything.
    pub fn has_rules(&self) -> bool {
        !self.config.permissions.is_empty()
    }

    /// The time as quotas take it.
    pub fn clock(&self, now: Instant) -> Duration {
        self.access.clock(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_comes_back_finds_its_quota_as_it_left_it() {
        let now = Instant::now();
        let access = Access::new(now);
        let rule = |name: &str| Rule {
            name: name.to_owned(),
            who: Vec::new(),
            may: Vec::new(),
            worlds: Vec::new(),
            quota: super::super::QuotaSettings { jobs_per_second: 1, ..Default::default() },
        };
        let identity = |number: usize| Identity::new(&number.to_string(), Vec::new(), Means::Token);
        let first = access.quota(now, &rule("one"), &identity(0));
        assert!(first.take(access.clock(now), 1) && !first.take(access.clock(now), 1));
        first.give_back();
        drop(first);
        // As many others as it takes for unused ones to be looked for.
        for number in 1..=3 * LEAST_SWEEP {
            access.quota(now, &rule("one"), &identity(number));
        }
        assert!(!access.quota(now, &rule("one"), &identity(0)).take(access.clock(now), 1), "it is used up still");
        let with_groups = |groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            Identity::new("0", groups, Means::Token)
        };
        for groups in [&["a"][..], &["a", "b"], &["b", "a"]] {
            let quota = access.quota(now, &rule("one"), &with_groups(groups));
            assert!(!quota.take(access.clock(now), 1), "another token of the same caller is no other quota");
        }
        assert!(
            access.quota(now, &rule("two"), &identity(0)).take(access.clock(now), 1),
            "another rule, another quota"
        );
        let count = access.quotas.lock().expect("no panic").all.len();
        assert!(count <= 2 * LEAST_SWEEP, "{count} quotas are kept");
    }
}
