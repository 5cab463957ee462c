//! Sends jobs to a gateway, over gRPC: the first as a call of its own, the others on one stream.
//!
//!     cargo run -p seeway-client --no-default-features --features grpc --example grpc -- HOST:PORT WORLD TEXT...

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use seeway_client::grpc::{Completed, Gateway, SubmitOptions};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, world, first, others @ ..] = &arguments[..] else {
        eprintln!("usage: grpc HOST:PORT WORLD TEXT...");
        return ExitCode::from(2);
    };
    match run(address, world, first, others).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(address: &str, world: &str, first: &str, others: &[String]) -> Result<(), Box<dyn Error>> {
    let gateway = Gateway::connect(address).await?;
    for world in gateway.list_worlds().await? {
        println!("world {} on {:?}{}", world.name, world.machines, if world.ready { "" } else { ", not ready" });
    }
    let options = SubmitOptions { timeout: Some(Duration::from_secs(30)), ..SubmitOptions::default() };
    print(first, &gateway.submit(world, first.to_owned(), &options).await?);

    let stream = gateway.stream();
    let mut submitted = JoinSet::new();
    for job in others.iter().cloned() {
        let (stream, world, options) = (stream.clone(), world.to_owned(), options.clone());
        submitted.spawn(async move { (stream.submit(&world, job.clone(), &options).await, job) });
    }
    while let Some(done) = submitted.join_next().await {
        match done? {
            (Ok(completed), job) => print(&job, &completed),
            // Whether it is safe to send it again is what a caller has to know.
            (Err(error), job) => println!("{job}: {error}; may have run: {}", error.may_have_run()),
        }
    }
    Ok(())
}

fn print(job: &str, completed: &Completed) {
    let reply = String::from_utf8_lossy(&completed.reply);
    println!("{job}: {reply} (by {} in {:?})", completed.machine, completed.machine_time);
}
