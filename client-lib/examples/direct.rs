//! Sends jobs straight to a machine, through its SSH server, all at once:
//!
//!     cargo run -p seeway-client --example direct -- USER HOST:PORT IDENTITY KNOWN_HOSTS TEXT...

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use seeway_client::direct::{Direct, Options};
use seeway_client::tunnel::{self, Endpoint, HostKey, Identity};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [user, server, identity, known_hosts, jobs @ ..] = &arguments[..] else {
        eprintln!("usage: direct USER HOST:PORT IDENTITY KNOWN_HOSTS TEXT...");
        return ExitCode::from(2);
    };
    match run(user, server, identity, known_hosts, jobs).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(
    user: &str,
    server: &str,
    identity: &str,
    known_hosts: &str,
    jobs: &[String],
) -> Result<(), Box<dyn Error>> {
    let server: Endpoint = server.parse()?;
    let host_key = HostKey::from_known_hosts(known_hosts, &server)?;
    let tunnel = tunnel::Options::new(server, user, Identity::load(identity)?, host_key);
    let machine = Arc::new(Direct::connect(&Options::new(tunnel)).await?);

    let mut submitted = JoinSet::new();
    for job in jobs.iter().cloned() {
        let machine = Arc::clone(&machine);
        submitted.spawn(async move { (machine.submit(job.as_bytes()).await, job) });
    }
    while let Some(done) = submitted.join_next().await {
        match done? {
            (Ok(reply), job) => println!("{job}: {}", String::from_utf8_lossy(&reply)),
            // Whether it is safe to send it again is what a caller has to know.
            (Err(error), job) => println!("{job}: {error}; may have run: {}", error.may_have_run()),
        }
    }
    Ok(())
}
