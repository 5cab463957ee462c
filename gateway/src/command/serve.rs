//! `seeway serve`: the gateway, until SIGTERM or SIGINT. SIGHUP reloads it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::supervisor::Supervisor;
use super::{Failure, block_on};
use crate::config::Config;
use crate::gateway::{Addresses, Beginning, Gateway, GatewayError, HandedOver};
use crate::handover::{Asked, Taker, Yours};
use crate::harden;
use crate::listen::inherited::Inherited;

/// How long the ready line waits for the worlds' machines. A gateway whose machines are down takes jobs all the same, and
/// holds them.
const MACHINES_HEAD_START: Duration = Duration::from_secs(3);

/// How long a gateway that takes over waits for the machines of worlds that the running one can reach.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(30);

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints one line when it takes jobs:
  ready grpc=127.0.0.1:50051 hardserver=unix:/run/seeway/nserver,tcp:127.0.0.1:9000 admin=127.0.0.1:9464

SIGTERM and SIGINT drain it: jobs in hand are finished, at most for runtime.drain_timeout, and it ends with 0.
SIGHUP reloads the configuration: worlds, machines, keys and limits change, and jobs in hand notice nothing. A file with a problem
changes nothing; the log says why. `seeway reload` does the same and prints what came of it.

Examples:
  seeway serve --config /etc/seeway/seeway.toml
  kill -HUP $(pidof seeway)
  SEEWAY_LISTEN__GRPC=127.0.0.1:7000 SEEWAY_LOG=debug seeway serve --config seeway.toml")]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Take the place of the gateway that runs with this configuration, without a lost job; needs listen.handover
    ///
    /// `seeway upgrade` does this and waits for it.
    #[arg(long)]
    pub take_over: bool,
}

/// Runs the gateway.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let hardened = |error: harden::HardenError| Failure::Failed(error.to_string());
    harden::begin().map_err(hardened)?;
    let config = Config::load(&args.config).map_err(|problems| Failure::Failed(problems.to_string()))?;
    harden::lock_memory(&config.process).map_err(hardened)?;
    block_on(serve(config, args, out))?
}

async fn serve(config: Config, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let failed = |error: GatewayError| Failure::Failed(error.to_string());
    let file = &args.config;
    let told_to_stop =
        || Failure::Failed("told to stop before this gateway could take jobs; nothing was taken over".into());
    let (taker, inherited) = if args.take_over {
        tokio::select! {
            taken = taken_from(&config) => taken?,
            () = signals.stop() => return Err(told_to_stop()),
        }
    } else {
        (None, None)
    };
    let inherited = match inherited {
        Some(inherited) => inherited,
        None => Inherited::from_systemd().map_err(|error| Failure::Failed(error.to_string()))?,
    };
    // systemd tells it to the first process alone, each gateway to the next one.
    let watchdog = sd_notify::watchdog_enabled().or(taker.as_ref().and_then(|taker| taker.watchdog));
    let supervisor = Supervisor::of_process(watchdog);
    let config = Arc::new(config);
    let confine = || harden::confine(&config, file).map(drop);
    let beginning = Beginning { file: Some(file.clone()), inherited, takes_over: taker.is_some(), watchdog };
    let mut gateway = Gateway::start_confined(config.clone(), beginning, confine).await.map_err(failed)?;
    let yours = match taker {
        None => {
            gateway.open();
            None
        }
        Some(taker) => {
            let yours = tokio::select! {
                yours = may_take_over(&mut gateway, taker) => yours?,
                () = signals.stop() => return Err(told_to_stop()),
            };
            if let Err(error) = gateway.open_after(yours.clone()).await {
                // Somebody may have come in already.
                let _ = gateway.drain().await;
                return Err(failed(error));
            }
            yours
        }
    };
    let must_stop = tokio::select! {
        ready = gateway.worlds_ready(MACHINES_HEAD_START) => {
            if !ready {
                tracing::warn!("not every world has a machine that is up; jobs for the others are held meanwhile");
            }
            false
        }
        // A signal to reload is kept until there is something to reload.
        () = signals.stop() => true,
    };
    let line = ready_line(gateway.addresses());
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    match written {
        // Callers are here by now: that whoever has started this one has gone ends nothing.
        Err(error) if args.take_over => tracing::warn!(%error, "that this gateway is ready could not be written"),
        written => written?,
    }
    let alive = tokio::spawn(supervisor.keep_alive(gateway.control().clone()));
    if args.take_over {
        supervisor.is_main_now(&line).await;
        if let Some(yours) = yours
            && let Err(error) = yours.settled()
        {
            tracing::debug!(%error, "the gateway that was taken over from has not waited");
        }
    } else {
        supervisor.ready(&line);
    }
    let next = if must_stop { Next::told() } else { until_stopped(&mut gateway, &mut signals).await? };
    if !matches!(next.why, Why::Replaced | Why::Unwatched) {
        supervisor.stopping();
    }
    let was_told = next.was_told;
    let told_twice = async {
        if !was_told {
            signals.stop().await;
        }
        signals.stop().await;
    };
    let ended = tokio::select! {
        drained = gateway.drain() => drained.map_err(failed),
        () = told_twice => Err(Failure::Failed("told to stop twice: ended without finishing the jobs in hand".into())),
    };
    alive.abort();
    match next.why {
        Why::Broken(why) => Err(failed(why)),
        // Nobody else has it started again.
        Why::Unwatched if supervisor.is_there() => Err(Failure::Failed(
            "the gateway that has taken over has not said that it is watched over: this one ends with 1, so that the service is started anew"
                .into(),
        )),
        Why::Told | Why::Replaced | Why::Unwatched => ended,
    }
}

/// Asks the gateway that runs for its listening sockets. Without one this is a start like any other.
async fn taken_from(config: &Config) -> Result<(Option<Taker>, Option<Inherited>), Failure> {
    let path = config.listen.handover.as_ref().ok_or_else(|| {
        Failure::Misused("--take-over needs listen.handover in the configuration, as the running gateway has it".into())
    })?;
    tracing::info!(path = %path.display(), "asking the running gateway for its place");
    let taken = Taker::connect(path)
        .await
        .map_err(|error| Failure::Failed(format!("unix:{}: {error}; nothing was taken over", path.display())))?;
    let Some((taker, inherited)) = taken else {
        tracing::info!(path = %path.display(), "there is no gateway to take over from");
        return Ok((None, None));
    };
    tracing::info!(pid = taker.running.pid, version = taker.running.version, "taking over");
    Ok((Some(taker), Some(inherited)))
}

/// Waits until the running gateway leaves its place, once this one can take jobs for every world that has them there. Until then the other
/// one is as it was, and so it is where this one fails.
async fn may_take_over(gateway: &mut Gateway, taker: Taker) -> Result<Option<Yours>, Failure> {
    // A machine that gets no jobs makes no world ready.
    gateway.control().adopt_drains(&taker.drains).await;
    let worlds = taker.ready_worlds.clone();
    let ready = tokio::time::timeout(TAKE_OVER_TIMEOUT, gateway.control().board().these_ready(&worlds));
    if ready.await.is_err() {
        let board = gateway.control().board().worlds();
        let missing: Vec<_> = board.into_iter().filter(|(world, ready)| !ready && worlds.contains(world)).collect();
        let missing: Vec<_> = missing.into_iter().map(|(world, _)| world).collect();
        return Err(Failure::Failed(format!(
            "no machine of {} is up after {} s, and the running gateway has one; nothing was taken over. The log says why they are not \
             up; try `seeway check --connect`",
            missing.join(", "),
            TAKE_OVER_TIMEOUT.as_secs()
        )));
    }
    let aside = gateway.aside().map(Path::to_owned);
    let yours = tokio::task::spawn_blocking(|| taker.ready(aside)).await;
    let yours = yours.map_err(|error| Failure::Failed(error.to_string()))?;
    let yours = yours.map_err(|error| Failure::Failed(format!("{error}; nothing was taken over")))?;
    if yours.is_none() {
        if let Some(path) = gateway.lost_name() {
            return Err(Failure::Failed(format!(
                "the running gateway has ended meanwhile, and unix:{} with it; nothing was taken over. Start this one anew, if none is to stop",
                path.display()
            )));
        }
        tracing::warn!("the running gateway has ended meanwhile; what it listened at goes on here");
    }
    Ok(yours)
}

/// A gateway drains.
struct Next {
    why: Why,
    /// Whether a signal has said so already: the second one ends it at once.
    was_told: bool,
}

/// Why a gateway drains.
enum Why {
    /// It was told to stop.
    Told,
    /// Another one has taken over.
    Replaced,
    /// The same, and the service manager may not know that one.
    Unwatched,
    /// Another one was to, and has ended, and this one can not accept callers again.
    Broken(GatewayError),
}

impl Next {
    fn told() -> Self {
        Self { why: Why::Told, was_told: true }
    }

    fn untold(why: Why) -> Self {
        Self { why, was_told: false }
    }
}

/// Reloads as often as it is told to, until it is told to stop, or another gateway has taken over.
async fn until_stopped(gateway: &mut Gateway, signals: &mut Signals) -> Result<Next, Failure> {
    let failed = |error: GatewayError| Failure::Failed(error.to_string());
    loop {
        let offer = tokio::select! {
            wanted = signals.next() => match wanted {
                Wanted::Stop => return Ok(Next::told()),
                Wanted::Reload => {
                    reload(gateway, None);
                    continue;
                }
            },
            asked = gateway.what_next() => match asked.map_err(failed)? {
                Asked::TakeOver(offer) => offer,
                Asked::Reload(done) => {
                    reload(gateway, Some(done));
                    continue;
                }
            },
        };
        tokio::select! {
            handed_over = gateway.hand_over(offer) => match handed_over {
                Ok(HandedOver::Yes) => return Ok(Next::untold(Why::Replaced)),
                Ok(HandedOver::Unwatched) => return Ok(Next::untold(Why::Unwatched)),
                Ok(HandedOver::No) => {}
                Err(error) => {
                    tracing::error!(%error, "the gateway that takes over has ended, and this one can not go on in its place: it finishes its jobs, and ends");
                    return Ok(Next::untold(Why::Broken(error)));
                }
            },
            () = signals.stop() => return Ok(Next { why: Why::Replaced, was_told: true }),
        }
    }
}

/// Reloads the configuration. The log says what came of it, and `done` hears of it; a signal to stop is heard meanwhile.
fn reload(gateway: &Gateway, done: Option<oneshot::Sender<Option<String>>>) {
    let control = gateway.control().clone();
    tokio::spawn(async move {
        let result = control.reload().await.map(|_| ()).map_err(|error| error.to_string());
        if let Some(done) = done {
            // Whoever asked may have gone.
            let _ = done.send(result.as_ref().err().cloned());
        }
        control.record("reload", None, None, result);
    });
}

fn ready_line(addresses: &Addresses) -> String {
    let list = |addresses: Vec<String>| if addresses.is_empty() { "off".to_owned() } else { addresses.join(",") };
    let management = addresses.management.iter().map(|management| format!(" management={management}"));
    format!(
        "ready grpc={} hardserver={} admin={}{}",
        list(addresses.grpc.iter().map(ToString::to_string).collect()),
        list(addresses.hardserver.iter().map(ToString::to_string).collect()),
        list(addresses.admin.iter().map(ToString::to_string).collect()),
        management.collect::<String>(),
    )
}

/// The signals that a running command knows. SIGHUP, which a terminal that is closed sends too, ends none.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::Failed(format!(
                    "signals can not be received: {error}; let the process have more open files (LimitNOFILE=)"
                ))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns when the command is to stop. What is to be reloaded is kept for [`next`](Self::next).
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What the next signal asks for.
    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Stop,
    Reload,
}
