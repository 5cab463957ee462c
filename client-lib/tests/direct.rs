//! Jobs straight to a machine, through a small SSH server. (Through OpenSSH and dropbear: the workspace's `tests`.)

#![allow(clippy::unwrap_used)] // In a test it is an assertion.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use seeway_client::direct::{Direct, Options};
use seeway_client::tunnel::TunnelError;
use seeway_client::{JobError, JobErrorKind};
use seeway_proto::outcome::Unknown;
use support::machine::APPLICATION_STATUS;
use support::proxy::Proxy;
use support::ssh_server::{KEEPER, NOBODY, SshServer};
use support::{until, within};

#[tokio::test]
async fn jobs_of_every_size_come_back() {
    let server = SshServer::start();
    let direct = within("connecting", Direct::connect(&Options::new(server.options()))).await.unwrap();
    within("the no-op", direct.no_op(Duration::from_secs(10))).await.unwrap();
    let jobs: Vec<Vec<u8>> = (0..1000_usize).map(|n| vec![u8::try_from(n % 251).unwrap(); (n * n) % 262_101]).collect();
    let mut replies = tokio::task::JoinSet::new();
    let direct = Arc::new(direct);
    for job in jobs {
        let direct = Arc::clone(&direct);
        replies.spawn(async move {
            let reply = direct.submit(&job).await?;
            assert!(*reply == *job, "another job's reply");
            Ok::<(), JobError>(())
        });
    }
    while let Some(reply) = within("a reply", replies.join_next()).await {
        reply.unwrap().unwrap();
    }
    let error = within("the failure", direct.submit(b"fail")).await.unwrap_err();
    assert_eq!(error.status(), Some(APPLICATION_STATUS));
    Arc::into_inner(direct).unwrap().close().await;
}

#[tokio::test]
async fn a_machine_that_does_not_run_is_named() {
    let server = SshServer::start();
    let options = Options { seejobs_port: NOBODY, ..Options::new(server.options()) };
    let error = within("the refusal", Direct::connect(&options)).await.unwrap_err();
    assert!(matches!(error, TunnelError::ChannelRefused { port: NOBODY, .. }), "{error}");
}

#[tokio::test]
async fn a_job_under_way_when_the_tunnel_is_lost_may_have_run() {
    let server = SshServer::start();
    let proxy = Proxy::to(server.address);
    let options = Options { seejobs_port: KEEPER, ..Options::new(server.options_through(proxy.address)) };
    let direct = within("connecting", Direct::connect(&options)).await.unwrap();
    let (error, ()) = tokio::join!(within("the end", direct.submit(b"job")), async {
        until("the job's arrival", || server.watched.kept_jobs.load(Ordering::SeqCst) == 1).await;
        proxy.cut();
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TunnelLost));
    assert!(error.may_have_run());
    assert!(error.to_string().contains(&proxy.address.to_string()), "{error}");
}
