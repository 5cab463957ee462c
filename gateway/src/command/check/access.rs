//! `seeway check --as WHO`: what somebody may do, and which rule says so.

use std::io::Write;

use serde_json::{Value, json};

use super::Failure;
use crate::access::{Action, Allowed, Identity, Means, QuotaSettings, Rules, groups_of_user};
use crate::command::table::write_table;
use crate::config::Config;

/// Reads WHO: `user:NAME`, `certificate:NAME`, `token:NAME` or `anonymous`. A Unix user is in the groups that this computer knows of,
/// and in `groups`.
pub(super) fn identity(who: &str, groups: &[String]) -> Result<Identity, Failure> {
    if who == Identity::ANONYMOUS {
        return Ok(Identity::anonymous());
    }
    let (means, name) = match who.split_once(':') {
        Some(("user", name)) => (Means::UnixUser, name),
        Some(("certificate", name)) => (Means::Certificate, name),
        Some(("token", name)) => (Means::Token, name),
        _ => (Means::Anonymous, ""),
    };
    if name.is_empty() {
        let what = "--as takes user:NAME, certificate:NAME, token:NAME or anonymous: a name counts as it was shown";
        return Err(Failure::Misused(what.to_owned()));
    }
    let mut groups = groups.to_vec();
    if means == Means::UnixUser {
        groups.extend(groups_of_user(name));
    }
    Ok(Identity::new(name, groups, means))
}

/// One thing that somebody may do, or may not.
struct Line<'c> {
    action: Action,
    world: Option<&'c str>,
    allowed: Option<Allowed<'c>>,
}

/// Everything there is to do.
fn lines<'c>(config: &'c Config, identity: &Identity) -> Vec<Line<'c>> {
    let mut lines = Vec::new();
    for action in Action::ALL {
        if action.is_of_world() {
            for world in &config.worlds {
                let name = world.name.as_str();
                let allowed = config.permissions.allow(identity, action, Some(name));
                lines.push(Line { action, world: Some(name), allowed });
            }
        } else if action != Action::Hardserver || config.listen.upstream_hardserver.is_some() {
            lines.push(Line { action, world: None, allowed: config.permissions.allow(identity, action, None) });
        }
    }
    lines
}

/// The same for programs.
pub(super) fn to_json(config: &Config, identity: &Identity) -> Value {
    let lines = lines(config, identity).into_iter().map(|line| {
        let rule = rule_of(line.allowed);
        let quota = line.allowed.and_then(quota_of).map(|quota| {
            json!({
                "jobs_per_second": quota.jobs_per_second,
                "in_flight": quota.in_flight,
                "bytes_per_second": quota.bytes_per_second,
            })
        });
        json!({
            "action": line.action.name(),
            "world": line.world,
            "allowed": line.allowed.is_some(),
            "rule": rule,
            "quota": quota,
        })
    });
    json!({
        "name": identity.name(),
        "groups": identity.groups(),
        "rules": config.permissions.iter().count(),
        "may": lines.collect::<Vec<_>>(),
    })
}

/// The same for people.
pub(super) fn write(out: &mut dyn Write, config: &Config, identity: &Identity) -> Result<(), Failure> {
    let groups = identity.groups().join(", ");
    writeln!(out, "{identity}{}", if groups.is_empty() { String::new() } else { format!(", in the groups {groups}") })?;
    writeln!(out)?;
    let rows: Vec<_> = lines(config, identity)
        .into_iter()
        .map(|line| {
            let because = match line.allowed {
                None => "no rule allows it".to_owned(),
                Some(Allowed::Unruled) => "there are no rules".to_owned(),
                Some(Allowed::By(rule)) => format!("rule `{}`", rule.name),
            };
            [
                line.action.name().to_owned(),
                line.world.unwrap_or("-").to_owned(),
                if line.allowed.is_some() { "yes" } else { "no" }.to_owned(),
                because,
                line.allowed.and_then(quota_of).map(quota_text).unwrap_or_default(),
            ]
        })
        .collect();
    write_table(out, ["action", "world", "allowed", "because", "quota"], &rows)?;
    if is_denied_everything(&config.permissions, identity, config) {
        writeln!(out, "\nnothing: to {identity} no world exists")?;
    }
    Ok(())
}

fn is_denied_everything(rules: &Rules, identity: &Identity, config: &Config) -> bool {
    let worlds = config.worlds.iter().map(|world| Some(world.name.as_str()));
    worlds.chain([None]).all(|world| Action::ALL.iter().all(|action| rules.allow(identity, *action, world).is_none()))
}

fn rule_of(allowed: Option<Allowed<'_>>) -> Option<&str> {
    match allowed? {
        Allowed::Unruled => None,
        Allowed::By(rule) => Some(&rule.name),
    }
}

/// The quota that counts, where there is one. Only jobs are counted.
fn quota_of(allowed: Allowed<'_>) -> Option<QuotaSettings> {
    match allowed {
        Allowed::By(rule) if !rule.quota.is_none() && rule.may.contains(&Action::Submit) => Some(rule.quota),
        Allowed::By(_) | Allowed::Unruled => None,
    }
}

fn quota_text(quota: QuotaSettings) -> String {
    let parts =
        [(quota.jobs_per_second, "jobs/s"), (quota.in_flight, "in flight"), (quota.bytes_per_second, "bytes/s")];
    let parts = parts.into_iter().filter(|(limit, _)| *limit > 0).map(|(limit, what)| format!("{limit} {what}"));
    parts.collect::<Vec<_>>().join(", ")
}
