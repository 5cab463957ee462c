//! Whom a rule is about: a pattern for names or groups, and the means by which they must have been shown.

use std::fmt;

use wildmatch::WildMatch;

use super::{Identity, Means};

/// One entry of a rule's `who`.
#[derive(Clone, Debug, PartialEq)]
pub struct Who {
    written: String,
    fits: Fits,
}

#[derive(Clone, Debug, PartialEq)]
enum Fits {
    Anonymous,
    /// A name, shown by this means; by any where there is none.
    Name(Option<Means>, WildMatch),
    /// A group, of identities shown by this means; by any where there is none.
    Group(Option<Means>, WildMatch),
}

/// What a pattern means.
type Meaning = fn(WildMatch) -> Fits;

/// What a pattern may begin with.
const PREFIXES: &[(&str, Meaning)] = &[
    ("user:", |pattern| Fits::Name(Some(Means::UnixUser), pattern)),
    ("certificate:", |pattern| Fits::Name(Some(Means::Certificate), pattern)),
    ("token:", |pattern| Fits::Name(Some(Means::Token), pattern)),
    ("group:", |pattern| Fits::Group(None, pattern)),
    ("user-group:", |pattern| Fits::Group(Some(Means::UnixUser), pattern)),
    ("token-group:", |pattern| Fits::Group(Some(Means::Token), pattern)),
];

impl Who {
    /// Reads an entry: `anonymous`, or a pattern in which `*` stands for any characters and `?` for one, with or without `user:`,
    /// `certificate:`, `token:`, `group:`, `user-group:` or `token-group:` before it. `None` where there is no pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = if text == Identity::ANONYMOUS {
            Fits::Anonymous
        } else {
            let any: Meaning = |pattern| Fits::Name(None, pattern);
            let named = PREFIXES.iter().find_map(|(prefix, fits)| Some((text.strip_prefix(prefix)?, *fits)));
            let (pattern, fits) = named.unwrap_or((text, any));
            if pattern.is_empty() {
                return None;
            }
            fits(WildMatch::new(pattern))
        };
        Some(Self { written: text.to_owned(), fits })
    }

    /// Whether it is about this identity. Who did not show who it is fits nothing but `anonymous`.
    pub fn fits(&self, identity: &Identity) -> bool {
        let is_shown_by = |means: Option<Means>| {
            identity.means() != Means::Anonymous && means.is_none_or(|means| means == identity.means())
        };
        match &self.fits {
            Fits::Anonymous => identity.means() == Means::Anonymous,
            Fits::Name(means, pattern) => is_shown_by(*means) && pattern.matches(identity.name()),
            Fits::Group(means, pattern) => {
                is_shown_by(*means) && identity.groups().iter().any(|group| pattern.matches(group))
            }
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(text: &str) -> Who {
        Who::parse(text).expect("a pattern")
    }

    #[test]
    fn a_name_counts_as_it_was_shown() {
        let groups = || vec!["hsm".to_owned(), "staff".to_owned()];
        let user = Identity::new("alice", groups(), Means::UnixUser);
        let token = Identity::new("alice", groups(), Means::Token);
        let certificate = Identity::new("spiffe://bank.example/pay/1", Vec::new(), Means::Certificate);
        let nobody = Identity::anonymous();
        // A certificate may say whatever its issuer let it say.
        let pretender = Identity::new("anonymous", Vec::new(), Means::Certificate);
        for (text, fits) in [
            ("alice", [true, true, false, false, false]),
            ("user:alice", [true, false, false, false, false]),
            ("token:al*", [false, true, false, false, false]),
            ("certificate:spiffe://bank.example/*", [false, false, true, false, false]),
            ("spiffe://bank.example/pay/?", [false, false, true, false, false]),
            ("certificate:*", [false, false, true, false, true]),
            ("*", [true, true, true, false, true]),
            ("group:hsm", [true, true, false, false, false]),
            ("user-group:st*", [true, false, false, false, false]),
            ("token-group:staff", [false, true, false, false, false]),
            ("group:*", [true, true, false, false, false]),
            ("anonymous", [false, false, false, true, false]),
            ("user:anonymous", [false; 5]),
            ("ALICE", [false; 5]),
        ] {
            let all = [&user, &token, &certificate, &nobody, &pretender];
            assert_eq!(all.map(|identity| who(text).fits(identity)), fits, "{text}");
        }
    }

    #[test]
    fn nothing_is_no_pattern() {
        for text in ["", "user:", "group:"] {
            assert_eq!(Who::parse(text), None, "{text:?}");
        }
        // A name may have any colons.
        assert!(who("a:b").fits(&Identity::new("a:b", Vec::new(), Means::Token)));
    }
}
