//! How `top` hears of the gateway and asks it for changes: two threads that block, so that the screen never does.

use std::io::{self, BufRead, Read as _};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use serde_json::Value;

use super::model::{Change, Input, Wish};
use super::seen::{Plots, Seen, happenings};
use crate::command::Failure;
use crate::command::operator::{ANSWER_BYTES, Answer, At, Stream, escaped};

/// How long to wait before the gateway is asked again, whether for the next state or after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the state is polled before a stream is asked for again: there may be room by then.
const POLLS: usize = 30;

/// Nobody listens any more.
struct Gone;

/// Tells of the gateway's state until nobody listens.
pub(super) fn listen(at: &At, to: &Sender<Input>) {
    let mut has_memory = false;
    loop {
        if !has_memory && let Some(plots) = remembered(at) {
            has_memory = true;
            if to.send(Input::Remembered(Box::new(plots))).is_err() {
                return;
            }
        }
        let heard = match at.stream("/api/events") {
            Ok(stream) => follow(stream, to),
            Err(None) => poll(at, to),
            Err(Some(failure)) => tell(to, Input::Silent(failure.to_string())),
        };
        if heard.is_err() {
            return;
        }
        std::thread::sleep(AGAIN);
    }
}

/// What the gateway remembers for plots, if it says.
fn remembered(at: &At) -> Option<Plots> {
    let points: Value = serde_json::from_reader(at.stream("/api/history").ok()?.take(ANSWER_BYTES)).ok()?;
    Some(Plots::read(points))
}

fn tell(to: &Sender<Input>, input: Input) -> Result<(), Gone> {
    to.send(input).map_err(|_| Gone)
}

/// Tells of each event until the stream ends.
fn follow(mut stream: Stream, to: &Sender<Input>) -> Result<(), Gone> {
    loop {
        match event(&mut stream) {
            Ok(Some(value)) => tell(to, understood(value))?,
            // The gateway lets listeners go after an hour, and when it ends. Which it is the next attempt says.
            Ok(None) => return Ok(()),
            Err(error) => return tell(to, Input::Silent(format!("the gateway has gone silent: {error}"))),
        }
    }
}

/// Asks for the state each second, for a while or until it fails.
fn poll(at: &At, to: &Sender<Input>) -> Result<(), Gone> {
    for _ in 0..POLLS {
        match look(at) {
            Ok(value) => tell(to, understood(value))?,
            Err(failure) => return tell(to, Input::Silent(failure.to_string())),
        }
        std::thread::sleep(AGAIN);
    }
    Ok(())
}

/// The state, asked for once.
pub(super) fn look(at: &At) -> Result<Value, Failure> {
    done(at, at.get("/api/state", None)?)
}

fn understood(value: Value) -> Input {
    match Seen::read(value) {
        Ok(seen) => Input::Seen(Box::new(seen)),
        Err(error) => Input::Silent(not_understood(&error)),
    }
}

/// What to say of a state that is none.
pub(super) fn not_understood(error: &serde_json::Error) -> String {
    format!("the gateway's state is not understood: {error}; use the gateway's own version of seeway")
}

/// The data of the next event; `None` at the end of the stream, which the gateway says as an event of its own where it lives on.
fn event(stream: &mut impl BufRead) -> io::Result<Option<Value>> {
    let mut data = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        stream.by_ref().take(ANSWER_BYTES).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(None) };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() && !data.is_empty() {
            return serde_json::from_slice(&data).map(Some).map_err(io::Error::from);
        }
        if text.strip_prefix(b"event:").is_some_and(|name| name.trim_ascii() == b"end") {
            return Ok(None);
        }
        if let Some(more) = text.strip_prefix(b"data:") {
            data.extend_from_slice(more);
            if data.len() as u64 > ANSWER_BYTES {
                return Err(io::Error::other("an event is too long"));
            }
        }
    }
}

/// Does what is wished, one thing after another, until nothing more is.
pub(super) fn serve(at: &At, wishes: &Receiver<Wish>, to: &Sender<Input>) {
    for wish in wishes {
        let input = match wish {
            Wish::Leave | Wish::Fail => return,
            Wish::History(machine) => {
                let history = history(at, &machine).map_err(|failure| failure.to_string());
                Input::Happened(machine, history)
            }
            Wish::Change(change) => Input::Changed(make(at, &change).map_err(|failure| failure.to_string())),
        };
        if to.send(input).is_err() {
            return;
        }
    }
}

fn history(at: &At, machine: &str) -> Result<Vec<crate::admin::state::Happening>, Failure> {
    let body = done(at, at.get(&format!("/api/machines/{}/history", escaped(machine)), None)?)?;
    happenings(body).map_err(|error| Failure::Failed(not_understood(&error)))
}

fn make(at: &At, change: &Change) -> Result<String, Failure> {
    let machine = change.machine.as_deref();
    let body = done(at, at.post(if change.drains { "/drain" } else { "/resume" }, machine)?)?;
    let what = machine.map_or_else(|| "the gateway".to_owned(), |machine| format!("machine {machine}"));
    let takes = if body["draining"] == true { "takes no new jobs" } else { "takes jobs" };
    Ok(format!("{what} {takes}; jobs in hand: {}", body["jobs"].as_u64().unwrap_or_default()))
}

/// What the gateway said, where it has done what it was asked to.
fn done(at: &At, answer: Answer) -> Result<Value, Failure> {
    if answer.is_done {
        return Ok(answer.body);
    }
    Err(Failure::Failed(format!("the gateway at {} refuses: {}", at.place(), answer.refusal())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_apart_however_they_are_cut() {
        let text = b"event: state\ndata: {\"a\":1}\n\n: a comment\n\nevent: state\r\ndata:{\"a\":\r\ndata: 2}\r\n\r\ndata: {\"a\":3}";
        // A reader that gives a byte at a time is a stream at its worst.
        let mut stream = io::BufReader::with_capacity(1, &text[..]);
        let mut next = || event(&mut stream).expect("read").map(|value| value["a"].clone());
        assert_eq!([next(), next(), next()], [Some(1.into()), Some(2.into()), None], "the last one was not whole");
        assert!(event(&mut &b"data: {\n\n"[..]).is_err());
        let ended = event(&mut &b"event: end\ndata: {}\n\nevent: state\ndata: {\"a\":1}\n\n"[..]);
        assert!(ended.expect("read").is_none(), "it is no state");
    }
}
