//! Many jobs on one stream without a task or an allocation for each: for load generators, and whoever else keeps many
//! jobs in flight from one place.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use seeway_proto::mux::{Broken, Outgoing, Refused};
use seeway_proto::wire::ReplyBody;

use super::engine::{Engine, Mux, StreamEnd};
use super::{Options, Transport};

/// A stream that its owner drives: [`stage_job`](Self::stage_job) as many as there is room for, then
/// [`turn`](Self::turn), and so on.
///
/// `T` is the owner's own name for a job; it comes back with the answer.
#[derive(Debug)]
pub struct Pipelined<S, T> {
    engine: Engine<S>,
    outgoing: Outgoing<T>,
}

impl<S: Transport, T> Pipelined<S, T> {
    /// Jobs over `transport`, at most `options.max_in_flight` of them unanswered.
    pub fn new(transport: S, options: &Options) -> Self {
        let outgoing = Outgoing::new(options.profile.clone(), options.limits, options.max_in_flight);
        Self { engine: Engine::new(transport), outgoing }
    }

    /// Puts a job into the next batch; its bytes are copied. Refused where `max_in_flight` jobs are unanswered. One above
    /// `max_job_bytes` is for the other side to reject.
    pub fn stage_job(&mut self, world: u32, job: &[u8], token: T) -> Result<(), Refused<T>> {
        self.outgoing.stage_job(world, job, token).map(drop)
    }

    /// How many jobs are unanswered, those included that are only staged.
    pub fn in_flight(&self) -> usize {
        self.outgoing.in_flight()
    }

    /// Whether one more job may be staged.
    pub fn has_room(&self) -> bool {
        self.outgoing.has_room()
    }

    /// Sends what is staged and calls `on_answer` for every answer that has come; returns after at least one. Cancelling
    /// it loses nothing.
    pub async fn turn(&mut self, mut on_answer: impl FnMut(T, ReplyBody<'_>)) -> Result<(), StreamEnd> {
        poll_fn(|cx| self.poll_turn(cx, &mut on_answer)).await
    }

    /// As [`turn`](Self::turn), for a caller that polls.
    pub fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        on_answer: &mut impl FnMut(T, ReplyBody<'_>),
    ) -> Poll<Result<(), StreamEnd>> {
        let mut mux = Answering { outgoing: &mut self.outgoing, on_answer, has_answered: false };
        loop {
            match self.engine.poll(cx, &mut mux) {
                // Part of an answer.
                Poll::Ready(Ok(())) if !mux.has_answered => {}
                polled => return polled,
            }
        }
    }

    /// Gives up the stream: `unsent` gets the jobs that never left, `sent` those whose outcome is unknown.
    pub fn close(self, mut unsent: impl FnMut(T), sent: impl FnMut(T)) {
        self.outgoing.close(|token, _| unsent(token), sent);
    }
}

struct Answering<'a, T, F> {
    outgoing: &'a mut Outgoing<T>,
    on_answer: &'a mut F,
    has_answered: bool,
}

impl<T, F: FnMut(T, ReplyBody<'_>)> Mux for Answering<'_, T, F> {
    fn take_output(&mut self) -> Option<Bytes> {
        self.outgoing.take_output().map(Bytes::from)
    }

    fn feed(&mut self, input: &mut &[u8]) -> Result<(), Broken> {
        while let Some(answer) = self.outgoing.receive(input)? {
            (self.on_answer)(answer.token, answer.reply);
            self.has_answered = true;
        }
        Ok(())
    }

    fn missing(&self, input: &[u8]) -> usize {
        self.outgoing.missing(input)
    }
}
