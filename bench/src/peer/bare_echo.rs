//! A server on a socket like the gateway's that does nothing but answer: the ceiling for whatever takes jobs from such callers, with
//! or without SSH behind it.
//!
//! One thread, one wait for all connections, a read and a write for what has come on each; jobs are decoded and replies encoded, so
//! that callers can check them, and nothing else is done.

use std::{
    io::{self, ErrorKind},
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use rustix::{
    event::epoll,
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send, sockopt::set_tcp_nodelay},
};
use seeway_proto::{
    mux::Incoming,
    wiped::WipedBuffer,
    wire::{Command, Limits, Profile},
};

/// How it runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen: an address, or a Unix socket's path
    #[arg(long)]
    listen: String,
}

/// Room for each read, and events taken at once: as the load generator has them.
const READ_SIZE: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// Jobs that a connection may have unanswered. All are answered at once.
const OUTSTANDING: usize = 65_536;
/// The event that is the listener's.
const LISTENER: u64 = u64::MAX;

/// Answers until it is killed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let is_unix = args.listen.starts_with('/');
    let listener: OwnedFd =
        if is_unix { UnixListener::bind(&args.listen)?.into() } else { TcpListener::bind(&args.listen)?.into() };
    println!("ready address={}", args.listen);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut callers: Vec<Option<Caller>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; READ_SIZE];
    loop {
        events.clear();
        retry_on_intr(|| epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None))?;
        for event in &events {
            let epoll::Event { data, .. } = *event;
            let index = data.u64();
            if index == LISTENER {
                let socket = rustix::net::accept(&listener)?;
                if !is_unix {
                    set_tcp_nodelay(&socket, true)?;
                }
                let data = epoll::EventData::new_u64(callers.len() as u64);
                // Told once, as the gateway is: told again and again the kernel looks at each socket twice.
                epoll::add(&epoll, &socket, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
                callers.push(Some(Caller::new(socket)));
                continue;
            }
            let caller = usize::try_from(index).ok().and_then(|index| callers.get_mut(index));
            if let Some(caller) = caller
                && caller.as_mut().is_some_and(|caller| caller.serve(&mut buffer).is_err())
            {
                // It has gone.
                *caller = None;
            }
        }
    }
}

struct Caller {
    socket: OwnedFd,
    incoming: Incoming,
    /// The beginning of a message whose rest has not come.
    partial: WipedBuffer,
}

impl Caller {
    fn new(socket: OwnedFd) -> Self {
        let incoming = Incoming::new(Profile::open_1(), Limits::default(), OUTSTANDING);
        Self { socket, incoming, partial: WipedBuffer::new() }
    }

    /// Reads what has come and answers it. Writes block: whoever does not read its answers holds all others up.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        // Less than there was room for was all.
        while self.serve_once(buffer)? == buffer.len() {}
        Ok(())
    }

    /// Reads once and answers that; returns how many bytes it was.
    fn serve_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match retry_on_intr(|| recv(self.socket.as_fd(), &mut *buffer, RecvFlags::DONTWAIT)) {
            Ok((0, _)) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if self.partial.is_empty() {
            let rest = answer(&mut self.incoming, &buffer[..count])?;
            self.partial.extend(&buffer[count - rest..count]);
        } else {
            self.partial.extend(&buffer[..count]);
            let rest = answer(&mut self.incoming, self.partial.filled())?;
            self.partial.consume(self.partial.len() - rest);
        }
        while self.incoming.output_len() > 0 {
            let output = self.incoming.output();
            let written = retry_on_intr(|| send(self.socket.as_fd(), output, SendFlags::NOSIGNAL))?;
            self.incoming.taken(written);
        }
        Ok(count)
    }
}

/// Answers every whole command in `bytes`; returns how many are left.
fn answer(incoming: &mut Incoming, bytes: &[u8]) -> io::Result<usize> {
    let mut rest = bytes;
    while let Some(command) = incoming.next(&mut rest).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
        match command {
            Command::SeeJob { tag, job, .. } => incoming.answer_job(tag, job.0),
            Command::NoOp { tag } => incoming.answer_no_op(tag),
            Command::GetPublishedObject { tag, .. } => incoming.answer_object(tag, 1),
        }
    }
    Ok(rest.len())
}
