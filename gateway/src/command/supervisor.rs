//! Whoever watches over the gateway's process: systemd, by `sd_notify(3)`. Without `NOTIFY_SOCKET` nobody does, and nothing is said.
//!
//! Used by `seeway serve`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Pid, getppid};
use sd_notify::NotifyState;

use crate::admin::Control;

/// How long a new main process waits until whoever has started it has ended: systemd watches a process best that is its own child.
const ADOPTION: Duration = Duration::from_secs(5);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// The supervisor, and how often it wants to hear of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supervisor {
    is_there: bool,
    /// Who has started this process.
    starter: Option<Pid>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that has started this process, if any, and how often it wants to hear of the main one.
    pub(super) fn of_process(watchdog: Option<Duration>) -> Self {
        Self { is_there: std::env::var_os("NOTIFY_SOCKET").is_some(), starter: getppid(), watchdog }
    }

    /// Whether anybody watches.
    pub(super) fn is_there(self) -> bool {
        self.is_there
    }

    /// The gateway takes jobs.
    pub(super) fn ready(self, line: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(line)]);
    }

    /// The gateway is about to end.
    pub(super) fn stopping(self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    }

    /// This process is the main one now, in the place of the gateway that it has taken over from. To be called while that one still
    /// runs; returns when it has been said.
    pub(super) async fn is_main_now(self, line: &str) {
        if !self.is_there {
            return;
        }
        let end = std::time::Instant::now() + ADOPTION;
        while getppid() == self.starter && std::time::Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        self.tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(line)]);
    }

    /// Says twice in each period that the process is well, as long as its shards answer. Returns where nobody wants to hear that; it says
    /// nothing as long as another process is the one that is watched.
    pub(super) async fn keep_alive(self, control: Arc<Control>) {
        let Some(period) = self.watchdog.filter(|period| self.is_there && !period.is_zero()) else { return };
        let mut ticks = tokio::time::interval(period / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if control.handovers().is_watched_elsewhere.load(Ordering::Relaxed) {
                continue;
            }
            if control.shards_answer(period / 4).await {
                self.tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(?period, "a shard does not answer; the watchdog is not told that all is well");
            }
        }
    }

    fn tell(self, states: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::warn!(%error, "the service manager can not be told how this process is");
        }
    }
}
