//! A TCP proxy that can stop forwarding without a word, or cut its connections.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Background;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Reads nothing and writes nothing, as a process that was stopped, or a network that swallows.
    Silent,
    Cut,
}

pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _background: Background,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Forward));
        let modes = Arc::clone(&mode);
        let background = Background::run(move || async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                let to = TcpStream::connect(target).await.unwrap();
                let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
                tokio::spawn(forward(from_read, to_write, modes.subscribe()));
                tokio::spawn(forward(to_read, from_write, modes.subscribe()));
            }
        });
        Self { address, mode, _background: background }
    }

    pub fn fall_silent(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>) {
    let mut modes = mode.clone();
    tokio::select! {
        () = copy(&mut from, &mut to, mode) => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn copy(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while mode.wait_for(|mode| *mode != Mode::Silent).await.is_ok() {
        let count = tokio::select! {
            biased;
            _ = mode.wait_for(|mode| *mode == Mode::Silent) => continue,
            count = from.read(&mut buffer) => count,
        };
        match count {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}
