//! Permission rules against an oracle that is as plain as the page that describes them: who gets in is who is named, nobody else.
//!
//! The text's first line is an identity (its means, a blank, its name), the second its groups, the third a world; each of the others is
//! a rule: what it allows (letters of `sphA`), then patterns of who after `<` and of worlds after `>`, separated by blanks.

use seeway::access::{Action, Allowed, Identity, Means, QuotaSettings, Rule, Rules, Who};
use wildmatch::WildMatch;

use crate::seeds::{Seeds, seed};

/// Longer patterns and names are not looked at here: the configuration refuses them, and the oracle takes its time.
const LONGEST: usize = 600;

struct Plain<'a> {
    may: Vec<Action>,
    who: Vec<&'a str>,
    worlds: Vec<&'a str>,
}

/// Reads rules and asks them everything about an identity.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (who, groups, world) = (line(), line(), line());
    let identity = identity(who, groups);
    let plain: Vec<Plain<'_>> = lines.map_while(rule).collect();
    let is_short = |text: &&str| text.len() <= LONGEST;
    if !plain.iter().all(|rule| rule.who.iter().chain(&rule.worlds).all(is_short)) || who.len() > LONGEST {
        return;
    }
    let rules = Rules::new(plain.iter().enumerate().map(|(number, rule)| built(number, rule)).collect());
    for action in Action::ALL {
        for world in [None, Some(world)] {
            let allowed = rules.allow(&identity, action, world);
            if plain.is_empty() {
                assert_eq!(allowed, Some(Allowed::Unruled));
                continue;
            }
            let expected = plain.iter().position(|rule| is_allowed(rule, &identity, action, world));
            let found = allowed.map(|allowed| match allowed {
                Allowed::By(rule) => rule.name.parse::<usize>().expect("rules are called by their numbers"),
                Allowed::Unruled => panic!("there are rules"),
            });
            assert_eq!(found, expected, "{identity:?} {action} {world:?}");
            let is_nobody = identity.means() == Means::Anonymous;
            let by_name = found.is_some_and(|number| !plain[number].who.contains(&Identity::ANONYMOUS));
            assert!(!(is_nobody && by_name), "nobody got in by a rule about others");
        }
    }
}

fn identity(text: &str, groups: &str) -> Identity {
    let (means, name) = text.split_once(' ').unwrap_or(("", text));
    let groups = groups.split(' ').filter(|group| !group.is_empty()).map(str::to_owned).collect();
    match means {
        "user" => Identity::new(name, groups, Means::UnixUser),
        "token" => Identity::new(name, groups, Means::Token),
        "certificate" => Identity::new(name, groups, Means::Certificate),
        _ => Identity::anonymous(),
    }
}

fn rule(line: &str) -> Option<Plain<'_>> {
    let (may, rest) = line.split_once('<')?;
    let (who, worlds) = rest.split_once('>')?;
    let words = |text| str::split(text, ' ').filter(|word| !word.is_empty()).collect::<Vec<_>>();
    let may = Action::ALL.into_iter().zip("sphA".chars()).filter(|(_, letter)| may.contains(*letter));
    // What is no pattern is refused with the whole configuration.
    let who = words(who).into_iter().filter(|text| Who::parse(text).is_some()).collect();
    Some(Plain { may: may.map(|(action, _)| action).collect(), who, worlds: words(worlds) })
}

fn built(number: usize, rule: &Plain<'_>) -> Rule {
    Rule {
        name: number.to_string(),
        who: rule.who.iter().map(|text| Who::parse(text).expect("it was read before")).collect(),
        may: rule.may.clone(),
        worlds: rule.worlds.iter().map(|text| WildMatch::new(text)).collect(),
        quota: QuotaSettings::default(),
    }
}

fn is_allowed(rule: &Plain<'_>, identity: &Identity, action: Action, world: Option<&str>) -> bool {
    rule.may.contains(&action)
        && world.is_none_or(|world| rule.worlds.iter().any(|pattern| matches(pattern, world)))
        && rule.who.iter().any(|who| is_about(who, identity))
}

fn is_about(who: &str, identity: &Identity) -> bool {
    if identity.means() == Means::Anonymous || who == Identity::ANONYMOUS {
        return identity.means() == Means::Anonymous && who == Identity::ANONYMOUS;
    }
    let is_named = |pattern| matches(pattern, identity.name());
    let is_in = |pattern: &str| identity.groups().iter().any(|group| matches(pattern, group));
    let is_shown_by = |means| identity.means() == means;
    match who.split_once(':') {
        Some(("user", pattern)) => is_shown_by(Means::UnixUser) && is_named(pattern),
        Some(("certificate", pattern)) => is_shown_by(Means::Certificate) && is_named(pattern),
        Some(("token", pattern)) => is_shown_by(Means::Token) && is_named(pattern),
        Some(("group", pattern)) => is_in(pattern),
        Some(("user-group", pattern)) => is_shown_by(Means::UnixUser) && is_in(pattern),
        Some(("token-group", pattern)) => is_shown_by(Means::Token) && is_in(pattern),
        _ => is_named(who),
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Whether the pattern so far fits the first so many characters.
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for part in pattern.chars() {
        let before = fits.clone();
        for count in 0..fits.len() {
            fits[count] = match part {
                '*' => before[count] || count > 0 && fits[count - 1],
                _ if count == 0 => false,
                '?' => before[count - 1],
                part => before[count - 1] && text[count - 1] == part,
            };
        }
    }
    fits[text.len()]
}

/// Identities of each kind, and rules that name them and others.
pub fn seeds() -> Seeds {
    vec![
        seed("no-rules", "user alice\nstaff\nsigner"),
        seed("by-name", "user alice\nstaff hsm\nsigner\ns<bob>*\nsp<user:al*>sign*\nA<root>*"),
        seed("by-group", "token pay-1\nstaff\nsigner\ns<token-group:st??f>signer\np<user-group:staff>*"),
        seed(
            "workload",
            "certificate spiffe://bank.example/pay/1\n\nsigner\nsph<certificate:spiffe://bank.example/*>s*r",
        ),
        seed("nobody", "\n\nsigner\ns<* user:* group:*>*\np<anonymous>*"),
        seed("called-anonymous", "certificate anonymous\n\nsigner\ns<anonymous>*\np<certificate:anonymous>*"),
        seed("stars", "user aaaaaaaaaab\n\naaaaaaaa\ns<*a*a*a*a*b>*a*a*a*?\np<**??*>*"),
        seed("colons", "token a:b\nx:y\nw:1\ns<a:b>w:?\np<token:a:b group:x:*>*:*"),
    ]
}
