//! Sends jobs to several gateways that serve the same worlds, and chooses among them for each job.
//!
//!     cargo run -p seeway-client --no-default-features --features grpc --example balanced -- HOST:PORT,HOST:PORT WORLD TEXT...

use std::process::ExitCode;
use std::time::Duration;

use seeway_client::JobError;
use seeway_client::grpc::{Completed, Credentials, Gateway, SubmitOptions};

/// How often a job is tried, and how long to wait in between.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, world, jobs @ ..] = &arguments[..] else {
        eprintln!("usage: balanced HOST:PORT,HOST:PORT WORLD TEXT...");
        return ExitCode::from(2);
    };
    let addresses: Vec<&str> = addresses.split(',').collect();
    let gateways = match Gateway::among(&addresses, Credentials::none()) {
        Ok(gateways) => gateways,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut status = ExitCode::SUCCESS;
    for job in jobs {
        match submit(&gateways, world, job).await {
            Ok(done) => println!("{job}: {} (by {})", String::from_utf8_lossy(&done.reply), done.machine),
            Err(error) => {
                eprintln!("{job}: {error}; may have run: {}", error.may_have_run());
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

/// Sends a job until a gateway takes it. Only one that certainly did not run, since there was nowhere to send it, is sent again.
async fn submit(gateways: &Gateway, world: &str, job: &str) -> Result<Completed, JobError> {
    let options = SubmitOptions { timeout: Some(Duration::from_secs(30)), ..SubmitOptions::default() };
    let mut tries = 1;
    loop {
        match gateways.submit(world, job.to_owned(), &options).await {
            Err(error) if tries < TRIES && error.reason() == "NOT_SENT" && !error.may_have_run() => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            ended => return ended,
        }
    }
}
