//! Keeps connects to one SSH server apart, over all shards and tunnels of the process: after a power cut a server is not met by
//! all tunnels in the same millisecond.
//!
//! Only keepers and pipes wait here, never a job.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use seeway_client::tunnel::Endpoint;
use tokio::time::{Instant, sleep_until};

/// The process's.
static PACER: LazyLock<Pacer> = LazyLock::new(Pacer::default);

/// Waits until it is this connect's turn: each comes at least `pace` after the one before it to the same server, in the order in
/// which they asked. Whoever stops waiting gives its turn up.
pub(super) async fn turn(server: &Endpoint, pace: Duration) {
    PACER.turn(server, pace).await;
}

/// When a server was last connected to; held by whoever's turn is next, until it comes. Its waiters queue up fairly.
type Last = Arc<tokio::sync::Mutex<Option<Instant>>>;

#[derive(Debug, Default)]
struct Pacer {
    servers: Mutex<HashMap<Endpoint, Last>>,
}

impl Pacer {
    async fn turn(&self, server: &Endpoint, pace: Duration) {
        if pace.is_zero() {
            return;
        }
        let last = self.last(server, pace);
        let mut last = last.lock().await;
        if let Some(last) = *last {
            sleep_until(last + pace).await;
        }
        *last = Some(Instant::now());
    }

    fn last(&self, server: &Endpoint, pace: Duration) -> Last {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = servers.get(server) {
            return Arc::clone(last);
        }
        // A new server: a good moment to forget those that nobody connects to any more.
        servers.retain(|_, last| {
            Arc::strong_count(last) > 1
                || last.try_lock().is_ok_and(|last| last.is_some_and(|last| last.elapsed() < pace))
        });
        Arc::clone(servers.entry(server.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Endpoint {
        Endpoint { host: "hsm".to_owned(), port }
    }

    #[tokio::test]
    async fn turns_come_in_order_and_apart() {
        const PACE: Duration = Duration::from_millis(5);
        let pacer = Arc::new(Pacer::default());
        let started = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..32u32 {
            let pacer = Arc::clone(&pacer);
            waiting.spawn(async move {
                pacer.turn(&server(22), PACE).await;
                (number, started.elapsed())
            });
        }
        let mut turns = waiting.join_all().await;
        turns.sort_by_key(|(_, at)| *at);
        for (place, (number, at)) in (0..).zip(turns) {
            assert_eq!(number, place, "first come, first served");
            assert!(at >= PACE * place, "turn {place} comes after {at:?}");
        }
    }

    #[tokio::test]
    async fn servers_do_not_wait_for_each_other_and_no_pace_is_no_wait() {
        const PACE: Duration = Duration::from_secs(3600);
        let pacer = Pacer::default();
        let all = async {
            for port in 1..=100 {
                pacer.turn(&server(port), PACE).await;
            }
            for _ in 0..100 {
                pacer.turn(&server(1), Duration::ZERO).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("nobody waits");
    }

    #[tokio::test]
    async fn who_gives_up_holds_nobody_up_and_old_servers_are_forgotten() {
        const PACE: Duration = Duration::from_millis(50);
        let pacer = Pacer::default();
        pacer.turn(&server(22), PACE).await;
        let given_up = tokio::time::timeout(PACE / 5, pacer.turn(&server(22), Duration::from_secs(3600))).await;
        assert!(given_up.is_err());
        let next = tokio::time::timeout(Duration::from_secs(10), pacer.turn(&server(22), PACE)).await;
        next.expect("a turn that was given up is nobody's");
        tokio::time::sleep(PACE).await;
        pacer.turn(&server(23), PACE).await;
        let servers = pacer.servers.lock().expect("no panic");
        assert_eq!(servers.keys().map(|server| server.port).collect::<Vec<_>>(), [23]);
    }
}
