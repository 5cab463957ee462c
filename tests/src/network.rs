//! A network that can be cut: a TCP relay between the gateway and an SSH server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The relay. It ends when this is dropped.
pub struct Network {
    address: SocketAddr,
    state: watch::Sender<State>,
    connections: Arc<AtomicUsize>,
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
}

impl Network {
    /// A relay on a port of its own to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((server.ip(), 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it was just bound");
        let (state, watched) = watch::channel(State::Up);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let acceptor = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(relay(near, server, watched.clone()));
            }
        });
        Self { address, state, connections, acceptor }
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

async fn relay(mut near: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    // The relay must add no delay of its own.
    let _ = near.set_nodelay(true);
    let passed = async {
        let mut far = TcpStream::connect(server).await?;
        far.set_nodelay(true)?;
        copy_bidirectional(&mut near, &mut far).await
    };
    let was_stopped = tokio::select! {
        biased;
        _ = state.wait_for(|state| *state != State::Up) => true,
        _ = passed => false,
    };
    if was_stopped {
        // The sender lives as long as the relay; when it is gone, this ends too.
        let _ = state.wait_for(|state| *state != State::Silent).await;
        // Unread bytes or not: the other end sees a reset, not an orderly end.
        let _ = near.set_zero_linger();
    }
}
