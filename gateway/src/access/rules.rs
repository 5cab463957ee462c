//! The configuration's rules: who may do what on which worlds.

use std::fmt;

use wildmatch::WildMatch;

use super::{Identity, QuotaSettings, Who};

/// What a rule can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Send jobs to a world, and see that it is there.
    Submit,
    /// Open a byte pipe to a world's machine, and see that the world is there.
    Pipe,
    /// Send commands to the hardserver behind this gateway, with the gateway's own rights there.
    Hardserver,
    /// Reload, drain and resume the gateway.
    Admin,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Pipe, Self::Hardserver, Self::Admin];

    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Pipe => "pipe",
            Self::Hardserver => "hardserver",
            Self::Admin => "admin",
        }
    }

    /// The action of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Whether it is about a world.
    pub fn is_of_world(self) -> bool {
        matches!(self, Self::Submit | Self::Pipe)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One `[[permission]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `permission.name`: unique.
    pub name: String,
    /// `permission.who`: one of them is enough.
    pub who: Vec<Who>,
    /// `permission.may`; either [`Action::Admin`] alone or any of the others.
    pub may: Vec<Action>,
    /// `permission.worlds`: patterns for the names of worlds; one of them is enough.
    pub worlds: Vec<WildMatch>,
    /// What each identity may have under this rule.
    pub quota: QuotaSettings,
}

impl Rule {
    fn allows(&self, identity: &Identity, action: Action, world: Option<&str>) -> bool {
        self.may.contains(&action)
            && world.is_none_or(|world| self.worlds.iter().any(|pattern| pattern.matches(world)))
            && self.who.iter().any(|who| who.fits(identity))
    }
}

/// All of them. Where there is none everybody may everything; where there is one nobody may what no rule allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(Vec<Rule>);

/// Why somebody may do something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed<'a> {
    /// There are no rules.
    Unruled,
    /// By this rule, the first that allows it.
    By(&'a Rule),
}

impl Rules {
    /// The rules in the file's order.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether everybody may everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Whether a rule allows somebody to do anything but to manage the gateway.
    pub fn allow_jobs<'a>(&self, identity: &Identity, mut worlds: impl Iterator<Item = &'a str>) -> bool {
        let allows = |action, world| matches!(self.allow(identity, action, world), Some(Allowed::By(_)));
        allows(Action::Hardserver, None)
            || worlds.any(|world| allows(Action::Submit, Some(world)) || allows(Action::Pipe, Some(world)))
    }

    /// Whether somebody may do something to a world, or at all where the action is about none, and by which rule. Rules only
    /// allow: the order in which they stand says whose quota counts, nothing else.
    pub fn allow(&self, identity: &Identity, action: Action, world: Option<&str>) -> Option<Allowed<'_>> {
        if self.is_empty() {
            return Some(Allowed::Unruled);
        }
        self.0.iter().find(|rule| rule.allows(identity, action, world)).map(Allowed::By)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::access::Means;

    fn rule(name: &str, who: &[&str], may: &[Action], worlds: &[&str]) -> Rule {
        Rule {
            name: name.to_owned(),
            who: who.iter().map(|who| Who::parse(who).expect("a pattern")).collect(),
            may: may.to_vec(),
            worlds: worlds.iter().map(|world| WildMatch::new(world)).collect(),
            quota: QuotaSettings::default(),
        }
    }

    fn by<'a>(rules: &'a Rules, identity: &Identity, action: Action, world: Option<&str>) -> Option<&'a str> {
        match rules.allow(identity, action, world)? {
            Allowed::Unruled => Some(""),
            Allowed::By(rule) => Some(&rule.name),
        }
    }

    #[test]
    fn with_one_rule_the_rest_is_denied() {
        let alice = Identity::new("alice", vec!["staff".to_owned()], Means::UnixUser);
        let nobody = Identity::anonymous();
        assert_eq!(by(&Rules::default(), &nobody, Action::Admin, None), Some(""), "no rule, no denial");
        let rules = Rules::new(vec![
            rule("one", &["bob", "user:alice"], &[Action::Submit], &["sign*"]),
            rule("two", &["group:staff"], &[Action::Submit, Action::Pipe], &["*"]),
            rule("admins", &["user:root"], &[Action::Admin], &["*"]),
        ]);
        let may = |action, world| by(&rules, &alice, action, world);
        assert_eq!(may(Action::Submit, Some("signer")), Some("one"), "the first that fits");
        assert_eq!(may(Action::Submit, Some("other")), Some("two"));
        assert_eq!(may(Action::Pipe, Some("signer")), Some("two"));
        assert_eq!(may(Action::Admin, None), None);
        assert_eq!(may(Action::Hardserver, None), None);
        for action in Action::ALL {
            assert_eq!(by(&rules, &nobody, action, None), None, "{action}");
        }
    }

    proptest! {
        /// Whoever is in no rule may nothing, whatever the rules are.
        #[test]
        fn nobody_gets_in_by_a_rule_about_others(
            names in proptest::collection::vec("[a-z]{1,8}", 1..6),
            worlds in proptest::collection::vec("[a-z*?]{1,6}", 1..4),
            world in "[a-z]{1,6}",
        ) {
            let who: Vec<String> = names.iter().map(|name| format!("user:{name}")).collect();
            let who: Vec<&str> = who.iter().map(String::as_str).collect();
            let worlds: Vec<&str> = worlds.iter().map(String::as_str).collect();
            let rules = Rules::new(vec![rule("one", &who, &Action::ALL, &worlds)]);
            let others = [
                Identity::anonymous(),
                Identity::new(&names[0], names.clone(), Means::Token),
                Identity::new(&names[0], names.clone(), Means::Certificate),
                Identity::new(&format!("{}.", names[0]), names.clone(), Means::UnixUser),
            ];
            for identity in others {
                for action in Action::ALL {
                    prop_assert_eq!(rules.allow(&identity, action, Some(&world)), None);
                }
            }
        }
    }
}
