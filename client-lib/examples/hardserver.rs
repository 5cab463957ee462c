//! Sends jobs to a world behind a hardserver's socket, or a gateway that stands in for one:
//!
//!     cargo run -p seeway-client --example hardserver -- ADDRESS WORLD TEXT...
//!
//! ADDRESS is `unix:/PATH` or `tcp:HOST:PORT`; `env` takes it from `NFAST_SERVER` or `NFAST_SERVER_PORT`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use seeway_client::hardserver::{Address, Hardserver};
use seeway_client::stream::Options;

/// How long a job may take.
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, world, jobs @ ..] = &arguments[..] else {
        eprintln!("usage: hardserver ADDRESS WORLD TEXT...");
        return ExitCode::from(2);
    };
    match run(address, world, jobs).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(address: &str, world: &str, jobs: &[String]) -> Result<(), Box<dyn Error>> {
    let address = if address == "env" { Address::from_env()? } else { address.parse()? };
    let hardserver = Hardserver::connect(&address, Options::default()).await?;
    let world = hardserver.world(world).await?;
    for job in jobs {
        let reply = world.submit_within(job.as_bytes(), TIMEOUT).await?;
        println!("{job}: {}", String::from_utf8_lossy(&reply));
    }
    Ok(())
}
