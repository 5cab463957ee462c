//! Connects standard input and output to a port that an SSH server can reach:
//!
//!     cargo run -p seeway-client --example tunnel -- USER HOST:PORT IDENTITY KNOWN_HOSTS TARGET:PORT

use std::error::Error;
use std::process::ExitCode;

use seeway_client::tunnel::{Endpoint, HostKey, Identity, Options, Tunnel};
use tokio::io::{AsyncWriteExt, copy, stdin, stdout};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [user, server, identity, known_hosts, target] = &arguments[..] else {
        eprintln!("usage: tunnel USER HOST:PORT IDENTITY KNOWN_HOSTS TARGET:PORT");
        return ExitCode::from(2);
    };
    match run(user, server, identity, known_hosts, target).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(user: &str, server: &str, identity: &str, known_hosts: &str, target: &str) -> Result<(), Box<dyn Error>> {
    let server: Endpoint = server.parse()?;
    let target: Endpoint = target.parse()?;
    let host_key = HostKey::from_known_hosts(known_hosts, &server)?;
    let tunnel = Tunnel::connect(&Options::new(server, user, Identity::load(identity)?, host_key)).await?;
    eprintln!("{} says it is {}", tunnel.server(), tunnel.server_version());

    let mut channel = tunnel.open(&target.host, target.port).await?.into_stream();
    let (mut from_channel, mut to_channel) = tokio::io::split(&mut channel);
    let (mut stdin, mut stdout) = (stdin(), stdout());
    // Ends when the target has said everything; what is typed goes there meanwhile.
    tokio::select! {
        copied = copy(&mut from_channel, &mut stdout) => drop(copied?),
        typed = async {
            copy(&mut stdin, &mut to_channel).await?;
            to_channel.shutdown().await?;
            std::future::pending::<std::io::Result<()>>().await
        } => typed?,
    }
    tunnel.close().await;
    Ok(())
}
