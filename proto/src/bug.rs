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
    UnsentTakenForSent,
    DuplicateTagAccepted,
    AnsweredTagKept,
    RetryOfNonIdempotent,
    RetryBeyondAttempts,
    RetryPastDeadline,
    RetryBudgetIgnored,
    EarlierAttemptForgotten,
    DeadlineIgnoredInQueue,
    NotSentAfterItLeft,
    LeakOnCancel,
    CancelledStillSent,
    DuplicateOutcome,
    DrainIgnored,
    LimitOffByOne,
    CallerInFlightIgnored,
    CallerBytesKept,
    RoomNeverTold,
    PermitLeakedOnLoss,
    OrderIgnored,
    StrictMovesOn,
    PrioritiesIgnored,
    OneCallerHogs,
    HeldNeverExpires,
    EjectedStillServed,
    LostWorldsServed,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::TagFreedAtDeadline,
        Self::ReplyMatchedByPosition,
        Self::UseCountIgnored,
        Self::WithdrawnStillSent,
        Self::UnsentLostOnClose,
        Self::UnsentTakenForSent,
        Self::DuplicateTagAccepted,
        Self::AnsweredTagKept,
        Self::RetryOfNonIdempotent,
        Self::RetryBeyondAttempts,
        Self::RetryPastDeadline,
        Self::RetryBudgetIgnored,
        Self::EarlierAttemptForgotten,
        Self::DeadlineIgnoredInQueue,
        Self::NotSentAfterItLeft,
        Self::LeakOnCancel,
        Self::CancelledStillSent,
        Self::DuplicateOutcome,
        Self::DrainIgnored,
        Self::LimitOffByOne,
        Self::CallerInFlightIgnored,
        Self::CallerBytesKept,
        Self::RoomNeverTold,
        Self::PermitLeakedOnLoss,
        Self::OrderIgnored,
        Self::StrictMovesOn,
        Self::PrioritiesIgnored,
        Self::OneCallerHogs,
        Self::HeldNeverExpires,
        Self::EjectedStillServed,
        Self::LostWorldsServed,
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
                "a reply is taken for that of the first job that was sent, whatever its tag says",
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
            Self::UnsentTakenForSent => {
                ("unsent-taken-for-sent", "a job that had not left a lost channel is told that it may have run")
            }
            Self::DuplicateTagAccepted => {
                ("duplicate-tag-accepted", "a legacy caller's second job with a tag that is taken disturbs the first")
            }
            Self::AnsweredTagKept => ("answered-tag-kept", "a legacy caller's tag stays taken after its answer"),
            Self::RetryOfNonIdempotent => ("retry-of-non-idempotent", "a job that is not idempotent is sent again"),
            Self::RetryBeyondAttempts => ("retry-beyond-attempts", "a job is sent again however often it was sent"),
            Self::RetryPastDeadline => ("retry-past-deadline", "a job is sent again after its deadline"),
            Self::RetryBudgetIgnored => ("retry-budget-ignored", "jobs are sent again however many were before"),
            Self::EarlierAttemptForgotten => {
                ("earlier-attempt-forgotten", "a job that was sent again is told what became of its last attempt only")
            }
            Self::DeadlineIgnoredInQueue => ("deadline-ignored-in-queue", "a job that waits outlives its deadline"),
            Self::NotSentAfterItLeft => {
                ("not-sent-after-it-left", "a job whose deadline passes after it has left is told that it was not sent")
            }
            Self::LeakOnCancel => ("leak-on-cancel", "a job that is cancelled is never forgotten"),
            Self::CancelledStillSent => ("cancelled-still-sent", "the staged jobs of a caller that has gone are sent"),
            Self::DuplicateOutcome => ("duplicate-outcome", "a job's caller is told twice"),
            Self::DrainIgnored => ("drain-ignored", "a machine that drains gets jobs"),
            Self::LimitOffByOne => ("limit-off-by-one", "one job more than a limit allows is taken"),
            Self::CallerInFlightIgnored => ("caller-in-flight-ignored", "a caller has more in flight than it may"),
            Self::CallerBytesKept => ("caller-bytes-kept", "the bytes of a caller's jobs that have ended count on"),
            Self::RoomNeverTold => ("room-never-told", "a caller that waits for room is not told when it has some"),
            Self::PermitLeakedOnLoss => {
                ("permit-leaked-on-loss", "what was in flight on a machine's last channel counts on after its loss")
            }
            Self::OrderIgnored => ("order-ignored", "jobs of one affinity key overtake each other"),
            Self::StrictMovesOn => {
                ("strict-moves-on", "a key's jobs go to another machine where the world says strict")
            }
            Self::PrioritiesIgnored => ("priorities-ignored", "every priority gets the same share"),
            Self::OneCallerHogs => ("one-caller-hogs", "whoever has the turn in the fair queue keeps it"),
            Self::HeldNeverExpires => ("held-never-expires", "jobs wait for a machine longer than `hold`"),
            Self::EjectedStillServed => ("ejected-still-served", "a machine that was ejected gets jobs all the same"),
            Self::LostWorldsServed => (
                "lost-worlds-served",
                "what is staged for a machine leaves for it after a reload has taken it from the world",
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
