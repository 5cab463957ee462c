//! `seeway job`: sends jobs any of the four ways, and prints the replies.

mod reply;
mod target;
#[cfg(test)]
mod tests;
mod way;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use seeway_client::grpc::{Credentials, CredentialsError};
use seeway_client::tunnel::Endpoint;
use serde_json::json;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::tls_files::TlsFiles;
use super::{Failure, block_on, write_json};
use crate::config::{parse_duration, parse_endpoint};
use reply::{Output, from_hex, hex, is_printable, write_reply};
use target::Target;
use way::{JobFailed, Way};

/// Jobs that are on their way at the same time, with --count.
const AT_ONCE: usize = 64;

/// The largest job that is read from a file or from stdin, in bytes: above it, the wire's framing takes none.
const JOB_LIMIT: u64 = 16 * 1024 * 1024;

/// Send a job to a CodeSafe machine, through a gateway or straight, and print the reply
///
/// One reply goes to stdout as it is; on a terminal as a line, in hexadecimal where it is not plain text. With --count, each reply is a
/// line, in the order of the jobs. A job without a reply is told on stderr, with its reason and whether it may have run; the exit
/// status is then 1.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway job grpc://127.0.0.1:50051 --world signer --data hello --output hex
  seeway job grpcs://gateway.example:50051 --ca ca.pem --certificate me.pem --key me.key --world signer --data hello
  seeway job unix:/run/seeway/nserver --world seeway-signer --file request.bin > reply.bin
  seeway job ssh://codesafe@hsm-a.example:22 --identity id_ed25519 --known-hosts ~/.ssh/known_hosts --hex 00ff
  date | seeway job tcp:127.0.0.1:9000 --world signer - --json")]
pub struct Args {
    /// grpc://host:port, grpcs://host:port (TLS), unix:/path, tcp:host:port, or straight to a machine: ssh://user@host:port
    #[arg(value_name = "TO")]
    to: Target,
    /// The world: its name (gRPC), or what it is published as (unix, tcp); not needed for ssh
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    #[command(flatten)]
    input: Input,
    /// How many times to send it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How long to wait for each reply
    #[arg(long, default_value = "60s", value_parser = timeout)]
    timeout: Duration,
    /// The job is safe to run twice: the gateway may send it again after an unknown outcome (gRPC; a world's configuration says it for
    /// unix and tcp)
    #[arg(long)]
    idempotent: bool,
    #[command(flatten)]
    credentials: CredentialFiles,
    /// The file of the private key to log in with (ssh)
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The server's public key, such as `ssh-ed25519 AAAA…` (ssh)
    #[arg(long, value_name = "KEY", conflicts_with = "known_hosts")]
    host_key: Option<String>,
    /// A file in OpenSSH's known_hosts form that has the server's keys (ssh)
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// The machine's SEEJobs port as the server sees it (ssh)
    #[arg(long, default_value = "127.0.0.1:8888", value_name = "HOST:PORT", value_parser = parse_endpoint)]
    seejobs: Endpoint,
    /// A TOML file with the wire's numbers, instead of the built-in open-1 (unix, tcp, ssh)
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// The largest job and reply, in bytes, as the other side is configured
    #[arg(long, default_value_t = 262_100, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=16_777_172))]
    max_job_bytes: u32,
    /// How to print replies
    #[arg(long, value_enum, value_name = "FORM")]
    output: Option<Output>,
    /// Print one JSON object for each job, on a line of its own
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// What TLS needs, and a token.
#[derive(Clone, Debug, Default, clap::Args)]
struct CredentialFiles {
    #[command(flatten)]
    tls: TlsFiles,
    /// A file that holds a token to send (grpcs)
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

impl CredentialFiles {
    fn read(&self) -> Result<Credentials, Failure> {
        let failed = |error: CredentialsError| Failure::Failed(error.to_string());
        let mut credentials = Credentials::none();
        if let Some(file) = &self.tls.ca {
            credentials = credentials.trust(file).map_err(failed)?;
        }
        if let (Some(certificate), Some(key)) = (&self.tls.certificate, &self.tls.key) {
            credentials = credentials.certificate(certificate, key).map_err(failed)?;
        }
        if let Some(file) = &self.token {
            credentials = credentials.token(file).map_err(failed)?;
        }
        Ok(credentials)
    }
}

/// The job's bytes; none of these: an empty job.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Input {
    /// The job, as text
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// The job, in hexadecimal
    #[arg(long)]
    hex: Option<String>,
    /// A file that holds the job
    #[arg(long)]
    file: Option<PathBuf>,
    /// The job comes from stdin
    #[arg(value_name = "-", value_enum, hide_possible_values = true)]
    stdin: Option<Dash>,
}

/// The word `-`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dash {
    #[value(name = "-")]
    Stdin,
}

fn timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .and_then(|duration| if duration.is_zero() { Err("must be above zero".to_owned()) } else { Ok(duration) })
}

/// Sends the jobs and prints the replies.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    send(args, out, &mut io::stderr(), io::stdout().is_terminal())
}

/// [`run`], with stderr and whether `out` is a terminal as arguments.
fn send(args: &Args, out: &mut dyn Write, err: &mut dyn Write, terminal: bool) -> Result<(), Failure> {
    // Whoever asked wrongly is told before a job is read or a server bothered.
    let plan = way::Plan::new(args)?;
    let job = read_job(&args.input)?;
    let printing = Printing { args, terminal };
    block_on(async {
        let way = Arc::new(plan.connect().await?);
        let mut underway: VecDeque<JoinHandle<Done>> = VecDeque::new();
        let mut sent = 0;
        let mut all_replied = true;
        for number in 1..=args.count {
            while sent < args.count && underway.len() < AT_ONCE {
                underway.push_back(tokio::spawn(one(Arc::clone(&way), job.clone())));
                sent += 1;
            }
            let done = underway.pop_front().expect("as many are sent as are waited for");
            let done = done.await.expect("sending does not panic, and nobody cancels it");
            all_replied &= done.outcome.is_ok();
            printing.print(number, &done, out, err)?;
        }
        if all_replied { Ok(()) } else { Err(Failure::Said) }
    })?
}

/// What became of one job.
struct Done {
    outcome: Result<Bytes, JobFailed>,
    took: Duration,
}

async fn one(way: Arc<Way>, job: Bytes) -> Done {
    let begun = Instant::now();
    let outcome = way.send(job).await;
    Done { outcome, took: begun.elapsed() }
}

fn read_job(input: &Input) -> Result<Bytes, Failure> {
    let job = if let Some(text) = &input.data {
        Zeroizing::new(text.clone().into_bytes())
    } else if let Some(text) = &input.hex {
        from_hex(text).map_err(|why| Failure::Misused(format!("--hex {why}")))?
    } else if let Some(path) = &input.file {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| {
            Failure::Failed(format!("the job {name} can not be read: {error}; name a file that this user may read"))
        })?;
        read_all(file, &name)?
    } else if input.stdin.is_some() {
        read_all(io::stdin().lock(), "on stdin")?
    } else {
        Zeroizing::new(Vec::new())
    };
    Ok(Bytes::from_owner(Wiped(job)))
}

fn read_all(source: impl io::Read, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut job = Zeroizing::new(Vec::new());
    let read = source.take(JOB_LIMIT + 1).read_to_end(&mut job);
    let read = read.map_err(|error| {
        Failure::Failed(format!("the job {name} can not be read: {error}; name a file that this user may read"))
    })?;
    if read as u64 > JOB_LIMIT {
        return Err(Failure::Failed(format!(
            "the job {name} has more than {JOB_LIMIT} bytes, which no machine takes; send a smaller one"
        )));
    }
    Ok(job)
}

/// Bytes that are wiped when the last handle to them is gone.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// How results are printed.
struct Printing<'a> {
    args: &'a Args,
    terminal: bool,
}

impl Printing<'_> {
    fn print(&self, number: u64, done: &Done, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
        match &done.outcome {
            _ if self.args.json => return print_json(number, done, out),
            Ok(reply) => write_reply(out, reply, self.args.output, self.args.count == 1, self.terminal)?,
            Err(failed) => {
                let job = if self.args.count == 1 { "the job".to_owned() } else { format!("job {number}") };
                writeln!(err, "seeway: {job} has no reply: {failed}")?;
            }
        }
        Ok(())
    }
}

/// Prints one job's end as an object on a line of its own.
fn print_json(number: u64, done: &Done, out: &mut dyn Write) -> Result<(), Failure> {
    let milliseconds = done.took.as_secs_f64() * 1000.0;
    let object = match &done.outcome {
        Ok(reply) => json!({
            "job": number,
            "ok": true,
            "reply_hex": hex(reply).as_str(),
            "reply_text": str::from_utf8(reply).ok().filter(|_| is_printable(reply)),
            "milliseconds": milliseconds,
        }),
        Err(failed) => json!({
            "job": number,
            "ok": false,
            "reason": failed.reason,
            "status": failed.status,
            "message": failed.message,
            "may_have_run": failed.may_have_run,
            "milliseconds": milliseconds,
        }),
    };
    write_json(out, &object)
}
