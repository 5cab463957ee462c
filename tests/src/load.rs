//! Callers who send jobs without a pause while something is done to the gateway, and miss no reply.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use seeway_bench::Target;
use tokio::task::JoinSet;

use crate::{
    Gateway,
    callers::{self, Told},
    wait,
};

/// Callers of both kinds who send jobs to a world until they are told to stop, and whose every job has to be replied to.
pub struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<u64>,
}

impl Load {
    /// Starts three: on the Unix socket, over TCP and over gRPC.
    pub fn start(gateway: &Gateway, world: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for (caller, target) in [gateway.unix(), gateway.tcp4(), gateway.grpc()].into_iter().enumerate() {
            callers.spawn(keep_sending(caller as u64, target, world, stop.clone()));
        }
        Self { stop, callers }
    }

    /// Lets them finish; how many jobs they had replied to.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let all = tokio::time::timeout(wait::BOUND, self.callers.join_all());
        all.await.expect("every job is answered").into_iter().sum()
    }
}

async fn keep_sending(caller: u64, target: Target, world: &'static str, stop: Arc<AtomicBool>) -> u64 {
    let (mut sent, mut replied) = (0, 0);
    let next = || {
        let wanted = !stop.load(Ordering::Relaxed);
        wanted.then(|| {
            sent += 1;
            (sent, callers::payload(caller, sent, 64))
        })
    };
    let on_answer = |number, told: Told<'_>| match told {
        Told::Replied(bytes) => {
            assert_eq!(bytes, callers::payload(caller, number, 64), "job {number} of caller {caller}");
            replied += 1;
        }
        Told::Failed { reason, .. } => panic!("job {number} of caller {caller} on {target}: {reason}"),
    };
    callers::run(&target, world, 16, next, on_answer).await.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(replied, sent);
    replied
}
