//! Every key that `seeway.toml` may hold, table by table.
//!
//! This is what the reader accepts, refuses and fills in by, what environment variables are looked up in, and what the
//! reference page is written from: a key that is not here does not exist, one that is here is documented.

mod access;
mod gateway;
mod machines;
mod trace;

/// One table of the file.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name, as in `[name]` or `[[name]]`.
    pub(super) name: &'static str,
    /// `[[name]]`: it may stand many times.
    pub(super) many: bool,
    /// What it is for, in Markdown.
    pub(super) doc: &'static str,
    /// Its keys, in the reference's order.
    pub(super) keys: &'static [Key],
}

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unset: Unset,
    /// What it means, in Markdown.
    pub(super) doc: &'static str,
}

/// What a key's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// One of these strings. That it is one, whoever makes something of it says.
    Choice(&'static [&'static str]),
    /// An array of strings.
    List,
    /// An array of some of these strings. That they are, whoever makes something of them says.
    Choices(&'static [&'static str]),
    /// A whole number, both ends included.
    Integer(u64, u64),
    /// `true` or `false`.
    Boolean,
    /// A duration as a string; the flag says whether zero means something.
    Duration { zero: bool },
    /// The string `"auto"` or a whole number up to this one.
    Shards(u64),
}

/// What a key that is not in the file counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unset {
    /// A problem.
    Required,
    /// Nothing; the text says what that means.
    Optional(&'static str),
    /// This value, as an environment variable would write it.
    Default(&'static str),
}

const fn key(name: &'static str, kind: Kind, unset: Unset, doc: &'static str) -> Key {
    Key { name, kind, unset, doc }
}

/// The tables, in the reference's order.
pub(super) const TABLES: &[Table] = &[
    access::LISTEN,
    access::TLS,
    access::MANAGEMENT_TLS,
    access::PERMISSION,
    machines::MACHINE,
    machines::WORLD,
    gateway::RUNTIME,
    gateway::LIMITS,
    machines::SSH,
    machines::RETRY,
    machines::BALANCE,
    machines::CIRCUIT,
    machines::WIRE,
    gateway::AUDIT,
    trace::TRACE,
    gateway::PROCESS,
    access::TOKEN,
];

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Its header as it stands in the file.
    pub(super) fn header(&self) -> String {
        if self.many { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

/// The table of this name.
pub(super) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The name among `names` that was probably meant by `written`.
pub(super) fn probably<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let written = plain(written);
    names
        .map(|name| (distance(&written, &plain(name)), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    // cost[i][j]: of making the first i letters of `one` the first j of `other`.
    let mut cost = vec![vec![0; other.len() + 1]; one.len() + 1];
    for (i, row) in cost.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, first) in cost[0].iter_mut().enumerate() {
        *first = j;
    }
    for i in 1..=one.len() {
        for j in 1..=other.len() {
            let change = usize::from(one[i - 1] != other[j - 1]);
            let mut least = (cost[i - 1][j] + 1).min(cost[i][j - 1] + 1).min(cost[i - 1][j - 1] + change);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(cost[i - 2][j - 2] + 1);
            }
            cost[i][j] = least;
        }
    }
    cost[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_that_was_meant() {
        let machine = table("machine").expect("in the table");
        let names = || machine.keys.iter().map(|key| key.name);
        for (written, meant) in [
            ("adress", Some("address")),
            ("host-key", Some("host_key")),
            ("Name", Some("name")),
            ("tunnel", Some("tunnels")),
            ("max_inflight", Some("max_in_flight")),
            ("sue", Some("user")),
            ("password", None),
        ] {
            assert_eq!(probably(written, names()), meant, "{written}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (position, table) in TABLES.iter().enumerate() {
            assert!(TABLES[..position].iter().all(|other| other.name != table.name));
            for (position, key) in table.keys.iter().enumerate() {
                assert!(table.keys[..position].iter().all(|other| other.name != key.name));
            }
        }
    }
}
