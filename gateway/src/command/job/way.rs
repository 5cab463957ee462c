//! The ways that a job can go, behind one face.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use seeway_client::direct::{self, Direct};
use seeway_client::grpc::{Credentials, Gateway, JobStream, SubmitOptions};
use seeway_client::hardserver::{Address, Hardserver, World};
use seeway_client::tunnel::{self, HostKey, Identity};
use seeway_client::{JobError, stream};
use seeway_proto::outcome::reason;
use seeway_proto::wire::{Limits, Profile};
use tokio::time::timeout;

use super::super::Failure;
use super::super::tls_files::TlsFiles;
use super::target::Target;
use super::{AT_ONCE, Args, CredentialFiles};
use crate::config::duration_text;

/// Where the jobs go, with all that is needed to get there: nothing of it is read from a file or asked of a person any more.
pub(super) enum Plan {
    Grpc { address: String, credentials: Credentials, world: String, options: SubmitOptions },
    Hardserver { address: Address, world: String, options: stream::Options, timeout: Duration },
    Direct { options: Box<direct::Options>, timeout: Duration },
}

impl Plan {
    /// What `args` ask for. Fails where they lack something, or name a file that is of no use.
    pub(super) fn new(args: &Args) -> Result<Self, Failure> {
        let world = || {
            let world = args.world.clone().filter(|world| !world.is_empty());
            world.ok_or_else(|| Failure::Misused(format!("{} needs to know the world: --world NAME", args.to)))
        };
        if !matches!(args.to, Target::Ssh { .. }) {
            no_login(args)?;
        }
        if !matches!(args.to, Target::Grpcs(_)) {
            no_credentials(args)?;
        }
        let timeout = args.timeout;
        match &args.to {
            Target::Grpc(_) | Target::Grpcs(_) => {
                let options =
                    SubmitOptions { timeout: Some(timeout), idempotent: args.idempotent, ..SubmitOptions::default() };
                let (address, credentials) = (args.to.to_string(), args.credentials.read()?);
                Ok(Self::Grpc { address, credentials, world: world()?, options })
            }
            Target::Hardserver(address) => {
                let (address, world) = (address.clone(), world()?);
                Ok(Self::Hardserver { address, world, options: stream_options(args)?, timeout })
            }
            Target::Ssh { user, server } => {
                let options = direct::Options {
                    tunnel: login(args, user, server)?,
                    seejobs_host: args.seejobs.host.clone(),
                    seejobs_port: args.seejobs.port,
                    stream: stream_options(args)?,
                };
                Ok(Self::Direct { options: Box::new(options), timeout })
            }
        }
    }

    /// Goes there. Where nobody answers in time, that is what failed.
    pub(super) async fn connect(self) -> Result<Way, Failure> {
        let failed = |error: &dyn fmt::Display| Failure::Failed(error.to_string());
        match self {
            Self::Grpc { address, credentials, world, options } => {
                let gateway = Gateway::connect_with(&address, credentials).await.map_err(|error| failed(&error))?;
                Ok(Way::Grpc { jobs: gateway.stream(), world, options })
            }
            Self::Hardserver { address, world, options, timeout } => {
                let hardserver = Hardserver::connect(&address, options).await.map_err(|error| failed(&error))?;
                let world = hardserver.world(&world).await.map_err(|error| {
                    Failure::Failed(format!(
                        "the world {world:?} can not be used: {}; see which there are with: seeway check",
                        JobFailed::from(error)
                    ))
                })?;
                Ok(Way::Hardserver { world, timeout })
            }
            Self::Direct { options, timeout } => {
                let machine = Direct::connect(&options).await.map_err(|error| failed(&error))?;
                Ok(Way::Direct { machine, timeout })
            }
        }
    }
}

fn stream_options(args: &Args) -> Result<stream::Options, Failure> {
    let profile = match &args.profile {
        None => Profile::open_1(),
        Some(file) => {
            let unusable = |why: &dyn fmt::Display| {
                Failure::Failed(format!(
                    "the profile {} can not be used: {why}; name a file in the form of proto/src/wire/open-1.toml",
                    file.display()
                ))
            };
            let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
            Profile::from_toml(&text).map_err(|error| unusable(&error))?.into()
        }
    };
    Ok(stream::Options {
        profile,
        limits: Limits { max_job_bytes: args.max_job_bytes },
        max_in_flight: AT_ONCE,
        ..stream::Options::default()
    })
}

/// Refuses what only `ssh://` has a use for.
fn no_login(args: &Args) -> Result<(), Failure> {
    let given = [
        ("--identity", args.identity.is_some()),
        ("--host-key", args.host_key.is_some()),
        ("--known-hosts", args.known_hosts.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::Misused(format!("{name} is for ssh://user@host:port, not for {}", args.to))),
        None => Ok(()),
    }
}

/// Refuses what only `grpcs://` has a use for.
fn no_credentials(args: &Args) -> Result<(), Failure> {
    let CredentialFiles { tls: TlsFiles { ca, certificate, .. }, token } = &args.credentials;
    let given = [("--ca", ca), ("--certificate", certificate), ("--token", token)];
    match given.into_iter().find(|(_, file)| file.is_some()) {
        Some((name, _)) => Err(Failure::Misused(format!("{name} is for grpcs://host:port, not for {}", args.to))),
        None => Ok(()),
    }
}

fn login(args: &Args, user: &str, server: &tunnel::Endpoint) -> Result<tunnel::Options, Failure> {
    let misused = |what: &str| Failure::Misused(format!("{} needs {what}", args.to));
    let identity = args.identity.as_ref().ok_or_else(|| misused("the private key to log in with: --identity FILE"))?;
    let host_key = match (&args.host_key, &args.known_hosts) {
        (Some(line), _) => {
            HostKey::from_line(line).map_err(|error| Failure::Misused(format!("--host-key: {error}")))?
        }
        (None, Some(file)) => {
            HostKey::from_known_hosts(file, server).map_err(|error| Failure::Failed(error.to_string()))?
        }
        (None, None) => {
            return Err(misused("the server's host key: --host-key \"ssh-ed25519 AAAA…\" or --known-hosts FILE"));
        }
    };
    let identity = Identity::load(identity).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(tunnel::Options::new(server.clone(), user, identity, host_key))
}

/// A connection that jobs go over, many at once.
pub(super) enum Way {
    Grpc { jobs: JobStream, world: String, options: SubmitOptions },
    Hardserver { world: World, timeout: Duration },
    Direct { machine: Direct, timeout: Duration },
}

impl Way {
    /// Sends one job and waits for its reply.
    pub(super) async fn send(&self, job: Bytes) -> Result<Bytes, JobFailed> {
        let reply = match self {
            Self::Grpc { jobs, world, options } => {
                // The gateway keeps the deadline, and knows best what became of the job. One that says nothing at all is not waited
                // for any longer.
                let longest = options.timeout.unwrap_or_default() + GRACE;
                match timeout(longest, jobs.submit(world, job, options)).await {
                    Ok(completed) => completed?.reply,
                    Err(_elapsed) => return Err(JobFailed::no_answer(longest)),
                }
            }
            Self::Hardserver { world, timeout } => world.submit_within(&job, *timeout).await?,
            Self::Direct { machine, timeout } => machine.submit_within(&job, *timeout).await?,
        };
        Ok(reply.into_bytes())
    }
}

/// How much longer than a job's deadline a gateway is waited for, to say what became of the job.
const GRACE: Duration = Duration::from_secs(1);

/// Why a job has no reply.
#[derive(Debug)]
pub(super) struct JobFailed {
    /// For programs, such as `NOT_SENT`.
    pub(super) reason: &'static str,
    /// The status that the other side gave, where it gave one.
    pub(super) status: Option<u32>,
    /// For people.
    pub(super) message: String,
    /// Where false, it is certain that the job did not run.
    pub(super) may_have_run: bool,
}

impl JobFailed {
    fn no_answer(waited: Duration) -> Self {
        Self {
            reason: reason::OUTCOME_UNKNOWN,
            status: None,
            message: format!("the gateway said nothing within {}, not even that it is too late", duration_text(waited)),
            may_have_run: true,
        }
    }
}

impl From<JobError> for JobFailed {
    fn from(error: JobError) -> Self {
        Self {
            reason: error.reason(),
            status: error.status(),
            message: error.to_string(),
            may_have_run: error.may_have_run(),
        }
    }
}

impl fmt::Display for JobFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [reason={} may_have_run={}", self.message, self.reason, self.may_have_run)?;
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        f.write_str("]")
    }
}
