//! A network that can be cut: a TCP relay between the gateway and an SSH server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The relay. It ends when this is dropped.
pub struct Network {
    address: SocketAddr,
    state: watch::Sender<State>,
    connections: Arc<AtomicUsize>,
    held_back: Arc<AtomicUsize>,
    acceptor: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes pass.
    Up,
    /// Connections are reset, new ones too.
    Cut,
    /// Bytes are swallowed, and nobody is told.
    Silent,
    /// What the server says is kept back; it ends with that and an orderly end of the connection.
    HeldBack,
}

impl Network {
    /// A relay on a port of its own to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((server.ip(), 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it was just bound");
        let (state, watched) = watch::channel(State::Up);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let held_back = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&held_back);
        let acceptor = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(relay(near, server, watched.clone(), Arc::clone(&held)));
            }
        });
        Self { address, state, connections, held_back, acceptor }
    }

    /// Where the gateway connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, and every new one, until [`Self::mend`].
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Swallows every byte and keeps every connection open, new ones too, until [`Self::mend`].
    pub fn fall_silent(&self) {
        self.state.send_replace(State::Silent);
    }

    /// From now on keeps back what the server says. [`Self::mend`] delivers it all at once, and the connection's end with it.
    pub fn hold_back(&self) {
        self.held_back.store(0, Ordering::Relaxed);
        self.state.send_replace(State::HeldBack);
    }

    /// Bytes that are held back.
    pub fn held_back(&self) -> usize {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Lets new connections through, and resets those that were swallowed.
    pub fn mend(&self) {
        self.state.send_replace(State::Up);
    }

    /// Connections that were made so far, cut ones included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}

async fn relay(near: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>, held_back: Arc<AtomicUsize>) {
    // The relay must add no delay of its own.
    let _ = near.set_nodelay(true);
    let mut near = near;
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let _ = far.set_nodelay(true);
    let stopped = tokio::select! {
        biased;
        stopped = state.wait_for(|state| *state != State::Up) => stopped.map(|state| *state),
        _ = copy_bidirectional(&mut near, &mut far) => return,
    };
    if matches!(stopped, Ok(State::HeldBack)) {
        let _ = hold(&mut near, &mut far, &mut state, &held_back).await;
        return;
    }
    // The sender lives as long as the relay; when it is gone, this ends too.
    let _ = state.wait_for(|state| *state != State::Silent).await;
    // Unread bytes or not: the other end sees a reset, not an orderly end.
    let _ = near.set_zero_linger();
}

async fn hold(
    near: &mut TcpStream,
    far: &mut TcpStream,
    state: &mut watch::Receiver<State>,
    held_back: &AtomicUsize,
) -> std::io::Result<()> {
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    let mut held = Vec::new();
    tokio::select! {
        _ = copy(&mut near_read, &mut far_write) => {}
        _ = state.wait_for(|state| *state != State::HeldBack) => {}
        () = async {
            while far_read.read_buf(&mut held).await.is_ok_and(|count| count > 0) {
                held_back.store(held.len(), Ordering::Relaxed);
            }
            std::future::pending::<()>().await;
        } => {}
    }
    near_write.write_all(&held).await?;
    near_write.shutdown().await
}
