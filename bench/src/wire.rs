//! A legacy caller: one connection that speaks the SEEJob wire, with many jobs in flight.

use std::{io, pin::Pin};

use bytes::{Buf, Bytes};
use seeway_proto::{
    mux::{Outgoing, Refused},
    wiped::WipedBuffer,
    wire::{Limits, Profile, ReplyBody},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
};

use crate::{CallerError, Target};

/// Room for each read: what a socket's buffer commonly holds.
const READ_SIZE: usize = 64 * 1024;

/// Bytes both ways, whatever kind of socket carries them.
trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

type AnyStream = Pin<Box<dyn Stream>>;

/// The connection. `T` is the caller's own name for a job, which comes back with its answer.
pub struct WireCaller<T> {
    target: String,
    read: ReadHalf<AnyStream>,
    write: WriteHalf<AnyStream>,
    outgoing: Outgoing<T>,
    leaving: Bytes,
    /// Why nothing more can be written, once that is so.
    unwritable: Option<io::Error>,
    input: WipedBuffer,
}

impl<T> WireCaller<T> {
    /// Connects to a hardserver socket, or straight to a machine's SEEJobs port. A gRPC target is a [`CallerError::Connection`].
    pub async fn connect(target: &Target, max_in_flight: usize) -> Result<Self, CallerError> {
        let stream: io::Result<AnyStream> = match target {
            Target::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::pin(stream) as AnyStream),
            Target::Tcp(address) => tcp(address).await.map(|stream| Box::pin(stream) as AnyStream),
            Target::Grpc(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "gRPC is not the SEEJob wire")),
        };
        let target = target.to_string();
        let stream = stream.map_err(|source| CallerError::Connection { target: target.clone(), source })?;
        let (read, write) = tokio::io::split(stream);
        Ok(Self {
            target,
            read,
            write,
            outgoing: Outgoing::new(Profile::open_1(), Limits::default(), max_in_flight),
            leaving: Bytes::new(),
            unwritable: None,
            input: WipedBuffer::with_capacity(READ_SIZE),
        })
    }

    /// Asks for a world's handle; to be called before any job is staged.
    pub async fn open_world(&mut self, name: &str, token: T) -> Result<u32, CallerError> {
        if self.outgoing.stage_get_published_object(name, token).is_err() {
            return Err(self.protocol("a world must be opened before jobs are staged"));
        }
        let mut answer = None;
        while answer.is_none() {
            self.exchange(|_, reply| {
                answer = Some(match reply {
                    ReplyBody::Object(handle) => Ok(handle),
                    ReplyBody::Error { status, .. } => Err(status),
                    ReplyBody::NoOp | ReplyBody::Job(_) => Err(0),
                });
            })
            .await?;
        }
        let handle = answer.expect("the loop ends when there is one");
        handle.map_err(|status| CallerError::NoSuchWorld {
            target: self.target.clone(),
            world: name.to_owned(),
            status,
        })
    }

    /// Stages a job; [`exchange`](Self::exchange) sends it. The token comes back where too many are in flight.
    pub fn stage(&mut self, world: u32, job: &[u8], token: T) -> Result<(), Refused<T>> {
        self.outgoing.stage_job(world, job, token).map(|_| ())
    }

    /// Jobs staged or sent and not answered.
    pub fn in_flight(&self) -> usize {
        self.outgoing.in_flight()
    }

    /// Sends what is staged and waits until at least one answer has come; gives each to `on_answer`. Reads while it
    /// writes, so that neither end can wait for the other for ever. May be cancelled, and called again.
    pub async fn exchange(&mut self, mut on_answer: impl FnMut(T, ReplyBody<'_>)) -> Result<(), CallerError> {
        loop {
            if self.leaving.is_empty()
                && let Some(staged) = self.outgoing.take_output()
            {
                self.leaving = staged.into();
            }
            let missing = self.outgoing.missing(self.input.filled()).max(READ_SIZE);
            let read = tokio::select! {
                biased;
                written = self.write.write(&self.leaving), if self.unwritable.is_none() && !self.leaving.is_empty() => {
                    match written {
                        Ok(written) => self.leaving.advance(written),
                        // What was answered before the other end closed can still be read, and has to be.
                        Err(source) => self.unwritable = Some(source),
                    }
                    continue;
                }
                read = self.read.read(self.input.unfilled(missing)) => read,
            };
            match read {
                Ok(count @ 1..) => self.input.commit(count),
                ended => {
                    let why = self.unwritable.take().map_or(ended.map(|_| io::ErrorKind::UnexpectedEof.into()), Ok);
                    return Err(self.lost(why.unwrap_or_else(|error| error)));
                }
            }
            if self.decode(&mut on_answer)? {
                return Ok(());
            }
        }
    }

    fn decode(&mut self, on_answer: &mut impl FnMut(T, ReplyBody<'_>)) -> Result<bool, CallerError> {
        let mut rest = self.input.filled();
        let before = rest.len();
        let mut any = false;
        loop {
            match self.outgoing.receive(&mut rest) {
                Ok(Some(answer)) => on_answer(answer.token, answer.reply),
                Ok(None) => break,
                Err(broken) => return Err(self.protocol(&broken.to_string())),
            }
            any = true;
        }
        let consumed = before - rest.len();
        self.input.consume(consumed);
        Ok(any)
    }

    /// Ends the connection; gives the tokens of jobs that have no answer: first those that were never sent, then those
    /// that were, wholly or in part.
    pub fn close(self) -> (Vec<T>, Vec<T>) {
        let (mut unsent, mut sent) = (Vec::new(), Vec::new());
        self.outgoing.close(|token, _| unsent.push(token), |token| sent.push(token));
        (unsent, sent)
    }

    fn lost(&self, source: io::Error) -> CallerError {
        CallerError::Connection { target: self.target.clone(), source }
    }

    fn protocol(&self, what: &str) -> CallerError {
        CallerError::Protocol { target: self.target.clone(), what: what.to_owned() }
    }
}

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
