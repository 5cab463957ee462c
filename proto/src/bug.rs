//! Deliberate bugs, by which the simulator proves that it finds any.
//!
//! They are compiled in with the feature `deliberate-bugs`, which only the simulator asks for, and even then each is off unless
//! a thread switches it on. Without the feature [`is_on`] is a constant, and nothing of them is left.

/// A bug that somebody could have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // `what` says it.
pub enum Bug {
    TagFreedAtDeadline,
    ReplyMatchedByPosition,
    UseCountIgnored,
    WithdrawnStillSent,
    UnsentLostOnClose,
    UnsentTakenForSentOnClose,
    DuplicateTagAccepted,
    RefusedTagIsFreed,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TagFreedAtDeadline,
        Self::ReplyMatchedByPosition,
        Self::UseCountIgnored,
        Self::WithdrawnStillSent,
        Self::UnsentLostOnClose,
        Self::UnsentTakenForSentOnClose,
        Self::DuplicateTagAccepted,
        Self::RefusedTagIsFreed,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// What it does wrong.
    pub fn what(self) -> &'static str {
        self.texts().1
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::TagFreedAtDeadline => (
                "tag-freed-at-deadline",
                "a job that nobody waits for any more gives its tag back before its reply has come",
            ),
            Self::ReplyMatchedByPosition => (
                "reply-matched-by-position",
                "a reply is taken for that of the job that was sent first, whatever its tag says",
            ),
            Self::UseCountIgnored => {
                ("use-count-ignored", "a late reply is taken for that of the next job with the same place in the table")
            }
            Self::WithdrawnStillSent => {
                ("withdrawn-still-sent", "a job that was withdrawn before it left is sent all the same")
            }
            Self::UnsentLostOnClose => {
                ("unsent-lost-on-close", "a job that had not left a channel is forgotten with it")
            }
            Self::UnsentTakenForSentOnClose => {
                ("unsent-taken-for-sent", "a job that had not left a lost channel is told that it may have run")
            }
            Self::DuplicateTagAccepted => {
                ("duplicate-tag-accepted", "a legacy caller's second job with a tag that is taken disturbs the first")
            }
            Self::RefusedTagIsFreed => (
                "refused-tag-is-freed",
                "refusing a second job with a tag that is taken makes the first one's tag free",
            ),
        }
    }
}

#[cfg(feature = "deliberate-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this thread has switched a bug on.
    pub fn is_on(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }

    /// A bug is switched on in this thread for as long as this lives.
    #[derive(Debug)]
    pub struct SwitchedOn {
        before: Option<Bug>,
    }

    impl SwitchedOn {
        /// Switches a bug on, or all off.
        pub fn new(bug: Option<Bug>) -> Self {
            Self { before: ON.replace(bug) }
        }
    }

    impl Drop for SwitchedOn {
        fn drop(&mut self) {
            ON.set(self.before);
        }
    }
}

#[cfg(feature = "deliberate-bugs")]
pub use switch::{SwitchedOn, is_on};

/// Whether a bug is switched on: there are none.
#[cfg(not(feature = "deliberate-bugs"))]
#[inline]
pub const fn is_on(_: Bug) -> bool {
    false
}
