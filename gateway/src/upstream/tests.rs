//! Keepers that are given another configuration, against an emulated HSM.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;
use seeway_machine::apps::App;
use seeway_machine::hsm::{Hsm, HsmConfig, MachinePort};
use seeway_machine::runtime::{Application, Job, Machine, MachineConfig, Processors};
use seeway_proto::v1::SubmitResponse;
use seeway_proto::wiped::WipedBuffer;
use tokio::sync::oneshot;

use super::{Keepers, PipeError, open_pipe};
use crate::access::{Access, Identity};
use crate::command::keygen;
use crate::config::Config;
use crate::schedule::{CallerId, Effects as _, FrontEnd, JobId, MachineId, NewJob, Priority, WorldId};
use crate::shard::{Budgets, Finished, PoolCounts, Shard, TunnelState, WorldChange};

/// How long a thing may take that takes milliseconds on an idle machine.
const BOUND: Duration = Duration::from_secs(30);

const HOUR: Duration = Duration::from_secs(3600);

/// Two machines behind one SSH server, at ports 8888 and 8889; the gateway knows the first as `a`, the second as `b`.
struct Scene {
    folder: tempfile::TempDir,
    identity: String,
    hsm: Hsm,
    machines: Vec<Machine>,
}

struct Nobody;

impl WorldChange for Nobody {
    fn world_ready(&self, _: WorldId, _: bool) {}
}

impl Scene {
    async fn set() -> Self {
        let echo = || App::Echo.start(App::Echo.config()).unwrap_or_else(|error| panic!("{error}"));
        Self::set_with([echo(), echo()].into()).await
    }

    /// With machines of which the first answers when the test says so.
    async fn set_holding(held: &Held) -> Self {
        let config = MachineConfig { processors: Processors::Inline, ..MachineConfig::default() };
        let (held, echo) = (held.clone(), App::Echo.start(App::Echo.config()));
        let holding = Machine::start(config, move || held.clone());
        Self::set_with([holding, echo].map(|machine| machine.unwrap_or_else(|error| panic!("{error}"))).into()).await
    }

    async fn set_with(machines: Vec<Machine>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = keygen::make(folder.path(), "a test").unwrap_or_else(|error| panic!("{error}")).public;
        let hsm = start_hsm(folder.path(), ([127, 0, 0, 1], 0).into(), &identity, &machines).await;
        Self { folder, identity, hsm, machines }
    }

    /// All tunnels are lost, and can be made again.
    async fn restart_hsm(self) -> Self {
        let Self { folder, identity, hsm, machines } = self;
        let address = hsm.ssh_address();
        hsm.stop().await;
        let hsm = start_hsm(folder.path(), address, &identity, &machines).await;
        Self { folder, identity, hsm, machines }
    }

    fn config(&self) -> Config {
        let (identity, _) = keygen::paths(self.folder.path());
        let machine = |name: &str, port: u16| {
            let (address, host_key) = (self.hsm.ssh_address(), self.hsm.host_key());
            let identity = identity.display();
            format!(
                "[[machine]]\nname = \"{name}\"\naddress = \"{address}\"\nidentity = \"{identity}\"\nhost_key = \"{host_key}\"\n\
                 seejobs_port = {port}\nchannels = 2\nbulk_channels = 1\n"
            )
        };
        let text = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = []\n[ssh]\nconnect_retry = \"10ms\"\nretry_max = \"20ms\"\n\
             refused_retry = \"1h\"\nconnect_timeout = \"2s\"\n{}{}[[world]]\nname = \"w\"\nmachines = [\"a\", \"b\"]\n",
            machine("a", 8888),
            machine("b", 8889)
        );
        let path = self.folder.path().join("seeway.toml");
        Config::read(&text, &path, []).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Of which only the first machine is told of.
    fn config_of_one(&self) -> Config {
        let mut config = self.config();
        config.machines.truncate(1);
        config
    }
}

/// One that has the same host key as the one before it in this folder.
async fn start_hsm(folder: &Path, address: std::net::SocketAddr, identity: &str, machines: &[Machine]) -> Hsm {
    let ports = [8888, 8889].into_iter().zip(machines.iter().cloned());
    let ports = ports.map(|(port, machine)| MachinePort { port, ..MachinePort::machine(machine) }).collect();
    let mut config = HsmConfig::new(address, vec![identity.to_owned()], ports);
    config.state_directory = Some(folder.join("hsm"));
    Hsm::start(config).await.unwrap_or_else(|error| panic!("{error}"))
}

/// An application that keeps its jobs until the test answers them.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<Job>>>);

impl Held {
    fn count(&self) -> usize {
        self.jobs().len()
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, Vec<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Application for Held {
    fn run(&self, job: Job) {
        self.jobs().push(job);
    }
}

/// A shard, and the keepers of its pools.
struct Pools {
    shard: Shard,
    keepers: Keepers,
}

impl Pools {
    /// Begins with `config`, on a shard that knows both machines.
    fn start(scene: &Scene, config: Config) -> Self {
        let all = Arc::new(scene.config());
        let shard = Shard::new(all.clone(), &Budgets::new(&all), Access::new(Instant::now()), Arc::new(Nobody));
        let keepers = Keepers::start(&shard, &Arc::new(config));
        let pools = Self { shard, keepers };
        // As after the first large jobs: there are all tunnels.
        (0..2).for_each(|machine| pools.want_bulk(machine));
        pools
    }

    /// A large job has come for a machine.
    fn want_bulk(&self, machine: usize) {
        self.shard.with(|state, _| state.front.bulk_wanted(MachineId(machine)));
    }

    fn take(&mut self, config: Config) {
        self.keepers.take(&Arc::new(config));
    }

    fn join(&self) -> CallerId {
        self.shard.with(|state, now| {
            let caller = state.scheduler.caller_joined(FrontEnd::Hardserver);
            state.front.add_calls(now, caller, &Identity::anonymous());
            caller
        })
    }

    /// Hands over a job with an hour to run.
    fn submit(&self, caller: CallerId, ticket: u64) -> (JobId, oneshot::Receiver<Finished>) {
        self.submit_bytes(caller, ticket, b"job")
    }

    fn submit_bytes(&self, caller: CallerId, ticket: u64, bytes: &[u8]) -> (JobId, oneshot::Receiver<Finished>) {
        self.shard.with(|state, now| {
            let finished = state.front.add_call(caller, ticket, None);
            let new = NewJob {
                ticket,
                world: WorldId(0),
                bytes,
                deadline: now + HOUR,
                idempotent: false,
                priority: Priority::Normal,
                affinity_key: b"",
            };
            (state.submit(now, caller, new).expect("there is room"), finished)
        })
    }

    fn counts(&self, machine: usize) -> PoolCounts {
        self.shard.with(|state, _| state.pools[machine].counts())
    }

    /// How many tunnels are in a state.
    fn tunnels(&self, machine: usize, wanted: TunnelState) -> usize {
        let states = self.shard.with(|state, _| state.pools[machine].states());
        TunnelState::ALL.into_iter().zip(states).find(|(state, _)| *state == wanted).expect("ALL has each").1
    }

    fn all_tunnels(&self, machine: usize) -> usize {
        self.shard.with(|state, _| state.pools[machine].states().into_iter().sum())
    }

    fn channels(&self, machine: usize) -> usize {
        self.shard.with(|state, _| state.scheduler.channels(MachineId(machine)))
    }

    /// Waits until nothing changes any more: so many tunnels are up beside the one for large jobs, with all their channels, and there
    /// is no other. With none, that one is not there either.
    async fn settle(&self, machine: usize, small: usize) {
        let bulk = small.min(1);
        self.settle_at(machine, small + bulk, 2 * small + bulk).await;
    }

    /// Waits until so many tunnels are up, with so many channels, and there is no other.
    async fn settle_at(&self, machine: usize, tunnels: usize, channels: usize) {
        let is_settled = || {
            self.all_tunnels(machine) == tunnels
                && self.tunnels(machine, TunnelState::Ready) == tunnels
                && self.channels(machine) == channels
        };
        until(&format!("{tunnels} tunnels stand, with {channels} channels"), is_settled).await;
    }

    async fn stop(self) {
        tokio::time::timeout(BOUND, self.keepers.stop()).await.expect("keepers stop at once");
        let states: usize = self.shard.with(|state, _| state.pools.iter().flat_map(crate::shard::Pool::states).sum());
        assert_eq!(states, 0, "no tunnel is left");
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BOUND, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_changed_machine_has_its_next_tunnel_before_the_old_one_goes() {
    let scene = Scene::set().await;
    let mut pools = Pools::start(&scene, scene.config_of_one());
    pools.settle(0, 1).await;
    // What tunnels are not made with changes none.
    let mut limits = scene.config_of_one();
    limits.machines[0].max_in_flight /= 2;
    limits.ssh.max_age = Duration::from_secs(7200);
    pools.take(limits);
    // The other machine, under the same name.
    let mut moved = scene.config_of_one();
    moved.machines[0].seejobs_port = 8889;
    pools.take(moved);
    until("there are second tunnels, and only these", || {
        assert!(pools.channels(0) >= 3, "the machine is up all the time");
        pools.counts(0).made == 4 && pools.all_tunnels(0) == 2
    })
    .await;
    pools.settle(0, 1).await;
    until("the old channels are gone", || scene.machines[0].streams() == 0).await;
    assert_eq!(scene.machines[1].streams(), 3);
    assert_eq!(pools.counts(0).made, 4);
    pools.stop().await;
}

#[tokio::test]
async fn a_configuration_that_leads_nowhere_leaves_the_old_tunnel() {
    let scene = Scene::set().await;
    let mut pools = Pools::start(&scene, scene.config_of_one());
    pools.settle(0, 1).await;
    let mut astray = scene.config_of_one();
    astray.machines[0].seejobs_port = 7;
    astray.ssh.connect_timeout = Duration::from_millis(200);
    pools.take(astray);
    until("the next tunnels are made", || pools.counts(0).made == 4).await;
    until("their channels are refused", || pools.counts(0).prohibited >= 3).await;
    assert_eq!((pools.tunnels(0, TunnelState::Ready), pools.channels(0)), (4, 3));
    // Back again: those that lead nowhere go, and so do the old ones, once the third ones are up.
    pools.take(scene.config_of_one());
    until("there are third ones", || {
        assert!(pools.channels(0) >= 3, "the machine is up all the time");
        pools.counts(0).made == 6
    })
    .await;
    pools.settle(0, 1).await;
    pools.stop().await;
}

#[tokio::test]
async fn machines_are_added_retired_and_taken_back() {
    let scene = Scene::set().await;
    let mut pools = Pools::start(&scene, scene.config_of_one());
    pools.settle(0, 1).await;
    pools.take(scene.config());
    pools.settle(1, 1).await;
    assert_eq!(pools.counts(0).made, 2, "the other machine's tunnels stand");
    let mut retired = scene.config();
    retired.machines[0].is_retired = true;
    pools.take(retired);
    pools.settle(0, 0).await;
    assert_eq!((pools.tunnels(1, TunnelState::Ready), pools.counts(1).made), (2, 2));
    pools.take(scene.config());
    pools.settle(0, 1).await;
    assert_eq!(pools.counts(0).made, 4);
    pools.stop().await;
}

#[tokio::test]
async fn tunnels_become_more_and_fewer() {
    let scene = Scene::set().await;
    let with = |tunnels| {
        let mut config = scene.config_of_one();
        config.machines[0].tunnels = tunnels;
        config.ssh.connect_pace = Duration::ZERO;
        config
    };
    let mut pools = Pools::start(&scene, with(1));
    // The one for large jobs stays the same.
    for (tunnels, made) in [(1, 2), (4, 5), (2, 5), (3, 6)] {
        pools.take(with(tunnels));
        pools.settle(0, tunnels).await;
        assert_eq!(pools.counts(0).made, made, "{tunnels} tunnels");
    }
    pools.stop().await;
}

#[tokio::test]
async fn large_jobs_have_a_tunnel_of_their_own_as_soon_as_there_are_any() {
    let scene = Scene::set().await;
    let with = |bulk_channels| {
        let mut config = scene.config_of_one();
        config.machines[0].bulk_channels = bulk_channels;
        config
    };
    let shard = {
        let all = Arc::new(scene.config());
        Shard::new(all.clone(), &Budgets::new(&all), Access::new(Instant::now()), Arc::new(Nobody))
    };
    let keepers = Keepers::start(&shard, &Arc::new(with(2)));
    let mut pools = Pools { shard, keepers };
    pools.settle_at(0, 1, 2).await;
    pools.want_bulk(0);
    pools.settle_at(0, 2, 4).await;
    assert_eq!(pools.counts(0).made, 2, "the first one stands");
    // Its successor has as many channels as are wanted then.
    pools.take(with(3));
    pools.settle_at(0, 2, 5).await;
    assert_eq!(pools.counts(0).made, 4);
    // Without channels of their own they have no tunnel either: it drains, and that of the small ones is made anew.
    pools.take(with(0));
    pools.settle_at(0, 1, 2).await;
    until("the old channels are gone", || scene.machines[0].streams() == 2).await;
    pools.take(with(1));
    pools.settle_at(0, 2, 3).await;
    pools.stop().await;
}

#[tokio::test]
async fn large_jobs_beside_small_ones_each_have_their_reply() {
    const JOBS: u64 = 200;
    let scene = Scene::set().await;
    let pools = Pools::start(&scene, scene.config_of_one());
    pools.settle(0, 1).await;
    let caller = pools.join();
    // Every other one is far above `bulk_above`, and goes out in many turns.
    let job = |ticket: u64| {
        let filling = u8::try_from(ticket % 251).expect("below 256");
        vec![filling; if ticket.is_multiple_of(2) { 200_000 } else { 100 }]
    };
    let finished: Vec<_> = (0..JOBS).map(|ticket| pools.submit_bytes(caller, ticket, &job(ticket)).1).collect();
    for (ticket, finished) in (0..).zip(finished) {
        let finished = tokio::time::timeout(BOUND, finished).await.expect("an outcome").expect("one");
        assert!(matches!(&finished, Finished::Replied(message) if reply_in(message) == job(ticket)), "job {ticket}");
    }
    pools.settle(0, 1).await;
    assert_eq!(pools.counts(0).made, 2);
    pools.stop().await;
}

#[tokio::test]
async fn what_was_refused_is_tried_again_after_a_reload() {
    let scene = Scene::set().await;
    let other = Scene::set().await;
    let mut wrong = scene.config_of_one();
    wrong.machines[0].host_key = other.config().machines[0].host_key.clone();
    let mut pools = Pools::start(&scene, wrong.clone());
    for refusals in 1..=3 {
        until("both are refused", || pools.counts(0).refused == 2 * refusals).await;
        until("they wait", || pools.tunnels(0, TunnelState::Refused) == 2).await;
        // The same again: perhaps it is the server that was mended.
        pools.take(wrong.clone());
    }
    pools.take(scene.config_of_one());
    pools.settle(0, 1).await;
    pools.stop().await;

    // A port that is forbidden is no other.
    let mut forbidden = scene.config_of_one();
    forbidden.machines[0].seejobs_port = 7;
    let mut pools = Pools::start(&scene, forbidden.clone());
    for tries in 1..=3 {
        until("all channels are refused", || pools.counts(0).prohibited == 3 * tries).await;
        pools.take(forbidden.clone());
    }
    assert_eq!(pools.counts(0).made, 2);
    pools.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_is_relieved_stands_as_long_as_somebody_waits_for_its_jobs() {
    let held = Held::default();
    let scene = Scene::set_holding(&held).await;
    // Which is for the end of the process, and for no other.
    let drain_timeout = Duration::from_millis(20);
    let with = |is_retired| {
        let mut config = scene.config_of_one();
        config.machines[0].is_retired = is_retired;
        config.runtime.drain_timeout = drain_timeout;
        config
    };
    let mut pools = Pools::start(&scene, with(false));
    pools.settle(0, 1).await;
    let caller = pools.join();
    let (_, finished) = pools.submit(caller, 0);
    until("the job is out", || held.count() == 1).await;
    pools.take(with(true));
    until("the tunnel drains", || pools.tunnels(0, TunnelState::Draining) == 1).await;
    let drains = Instant::now();
    until("that has taken long", || drains.elapsed() > 10 * drain_timeout).await;
    held.jobs().drain(..).for_each(|job| job.reply(b"reply"));
    let finished = tokio::time::timeout(BOUND, finished).await.expect("an outcome").expect("one");
    assert!(matches!(&finished, Finished::Replied(message) if reply_in(message) == b"reply"), "{finished:?}");
    pools.settle(0, 0).await;
    pools.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_is_relieved_does_not_wait_for_replies_that_nobody_wants() {
    let held = Held::default();
    let scene = Scene::set_holding(&held).await;
    let with = |is_retired| {
        let mut config = scene.config_of_one();
        config.machines[0].is_retired = is_retired;
        config.runtime.drain_timeout = HOUR;
        config
    };
    let mut pools = Pools::start(&scene, with(false));
    pools.settle(0, 1).await;
    let (patient, other) = (pools.join(), pools.join());
    let (_, finished) = pools.submit(patient, 0);
    let (given_up, _) = pools.submit(other, 0);
    until("both jobs are out", || held.count() == 2).await;
    pools.take(with(true));
    pools.shard.with(|state, now| state.scheduler.cancel(now, given_up, &mut state.front));
    until("the tunnel drains", || pools.tunnels(0, TunnelState::Draining) == 1).await;
    assert!(pools.channels(0) > 0, "somebody waits for the other job");
    // Its deadline.
    pools.shard.with(|state, now| state.scheduler.handle_timeout(now + 2 * HOUR, &mut state.front));
    let finished = tokio::time::timeout(BOUND, finished).await.expect("an outcome").expect("one");
    assert!(matches!(&finished, Finished::Failed(failure) if failure.may_have_run), "{finished:?}");
    pools.settle(0, 0).await;
    assert_eq!(held.count(), 2, "neither was ever answered");
    pools.stop().await;
}

#[tokio::test]
async fn waits_that_a_reload_has_changed_are_those_of_tunnels_that_stand() {
    let scene = Scene::set().await;
    let mut patient = scene.config_of_one();
    (patient.ssh.connect_retry, patient.ssh.retry_max) = (HOUR, HOUR);
    let mut pools = Pools::start(&scene, patient);
    pools.settle(0, 1).await;
    pools.take(scene.config_of_one());
    // Those of its channels too.
    scene.machines[0].kill();
    until("the channels are gone", || pools.channels(0) == 0).await;
    scene.machines[0].restart().unwrap_or_else(|error| panic!("{error}"));
    pools.settle(0, 1).await;
    assert_eq!(pools.counts(0).made, 2);
    let _scene = scene.restart_hsm().await;
    until("there are other tunnels", || pools.counts(0).made == 4).await;
    pools.settle(0, 1).await;
    pools.stop().await;
}

#[tokio::test]
async fn nothing_that_is_drained_gets_a_pipe() {
    let scene = Scene::set().await;
    let pools = Pools::start(&scene, scene.config());
    for machine in 0..2 {
        pools.settle(machine, 1).await;
    }
    let shard = pools.shard.clone();
    let drain = |machine: usize| {
        shard.with(|state, now| {
            state.scheduler.begin_machine_drain(now, MachineId(machine), &mut state.front);
        });
    };
    let open = || open_pipe(&shard, WorldId(0), b"", None);
    shard.with(|state, _| state.scheduler.begin_drain());
    let refused = open().await.err();
    assert!(matches!(refused, Some(PipeError::Draining)), "the gateway drains: {refused:?}");
    shard.with(|state, _| state.scheduler.end_drain());

    drain(0);
    let (_tunnel, _channel) = open().await.unwrap_or_else(|error| panic!("{error}"));
    until("it leads to the other machine", || scene.machines[1].streams() == 4).await;
    drain(1);
    let refused = open().await.err();
    assert!(matches!(refused, Some(PipeError::Draining)), "both machines drain: {refused:?}");
    assert_eq!(scene.machines[0].streams(), 3);

    // What a drain finds on its way does not get through either.
    shard.with(|state, now| state.scheduler.end_machine_drain(now, MachineId(0), &mut state.front));
    let mut opening = std::pin::pin!(open());
    let is_ready = std::future::poll_fn(|cx| std::task::Poll::Ready(opening.as_mut().poll(cx).is_ready())).await;
    assert!(!is_ready, "a tunnel takes its time");
    drain(0);
    let refused = opening.await.err();
    assert!(matches!(refused, Some(PipeError::Draining)), "it drains meanwhile: {refused:?}");
    pools.stop().await;
}

/// The reply in a `SubmitResponse` as it goes over gRPC, behind the five bytes of its head.
fn reply_in(message: &WipedBuffer) -> Vec<u8> {
    SubmitResponse::decode(&message.filled()[5..]).expect("a message").reply.into()
}
