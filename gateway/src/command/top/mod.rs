//! `seeway top`: a gateway that runs, live on a terminal, and its machines drained and resumed from there. Over its admin port, as
//! the console in the browser.
//!
//! `model` decides, `draw` shows, `feed` and `screen` bring what comes in; here they are put together.

mod draw;
mod feed;
mod fit;
mod model;
#[cfg(test)]
mod sample;
mod screen;
mod seen;
mod tables;
mod text;

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use self::draw::Painter;
use self::model::{Input, Model, Wish};
use self::screen::Screen;
use self::seen::Seen;
use super::operator::At;
use super::table::write_rows;
use super::{Failure, write_json};

/// How often the screen is drawn where nothing happens: what says since when nothing was heard goes on.
const TICK: Duration = Duration::from_millis(500);

/// A gateway that has not been looked at for a while has no rates yet. So often, and so long apart, one state is asked for.
const LOOKS: usize = 20;
const LOOK: Duration = Duration::from_millis(250);

/// Watch a running gateway live, and drain or resume its machines
///
/// Worlds, machines, callers and limits, each second. Arrows choose, Enter opens a machine, d drains it and r resumes it after a
/// question; ? shows all keys, q leaves.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway top
  seeway top --admin unix:/run/seeway/management
  seeway top --once
  seeway top --json | jq .jobs")]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// Print what there is now as plain text, and end
    #[arg(long, conflicts_with = "json")]
    once: bool,
}

/// Shows it until whoever looks leaves; or once.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    if args.at.json {
        return write_json(out, &one_state(&args.at)?);
    }
    if args.once {
        let value = one_state(&args.at)?;
        let seen = Seen::read(value).map_err(|error| Failure::Failed(feed::not_understood(&error)))?;
        return print(&args.at.place(), &seen, out);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Misused(
            "there is no terminal to draw on; print one view with --once, or the state for a program with --json"
                .into(),
        ));
    }
    watch(&args.at)
}

/// The state, with rates as soon as there are some.
fn one_state(at: &At) -> Result<serde_json::Value, Failure> {
    for _ in 1..LOOKS {
        let state = feed::look(at)?;
        if state["interval"].as_f64().is_some_and(|interval| interval > 0.0) {
            return Ok(state);
        }
        thread::sleep(LOOK);
    }
    feed::look(at)
}

/// One view as plain text.
fn print(place: &str, seen: &Seen, out: &mut dyn Write) -> Result<(), Failure> {
    let state = &seen.state;
    writeln!(out, "seeway {}  {}  {place}  {}", state.version, tables::gateway_mark(state).0, tables::about(state))?;
    writeln!(out, "{}", tables::work(state))?;
    let [p50, p99, p999] = tables::percentiles(state.jobs.seconds);
    writeln!(out, "jobs/s {}  p50 {p50}  p99 {p99}  p99.9 {p999}", text::rate(state.jobs.per_second))?;
    for table in tables::tables(state) {
        let heads: Vec<_> = table.columns.iter().map(|(head, _)| *head).chain(["trouble"]).collect();
        let rows: Vec<_> = table
            .rows
            .into_iter()
            .map(|row| row.cells.into_iter().chain([row.why.unwrap_or_default()]).collect::<Vec<_>>())
            .collect();
        writeln!(out, "\n{}", table.title)?;
        write_rows(out, &heads, &rows)?;
    }
    Ok(())
}

/// The live view.
fn watch(at: &At) -> Result<(), Failure> {
    // What was asked wrongly is said before the screen is taken.
    feed::look(at)?;
    let (inputs, input) = mpsc::channel();
    let (wishes, wished) = mpsc::channel();
    let no_terminal = |error: io::Error| {
        Failure::Failed(format!("the terminal can not be used: {error}; print one view with --once instead"))
    };
    let mut screen = Screen::take().map_err(no_terminal)?;
    let from = at.clone();
    beside(&inputs, move |to| feed::listen(&from, to));
    let from = at.clone();
    beside(&inputs, move |to| feed::serve(&from, &wished, to));
    beside(&inputs, screen::listen_for_signals);
    beside(&inputs, screen::listen);
    drop(inputs);

    let painter = Painter { has_colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let mut model = Model::new(&at.place(), Instant::now());
    loop {
        screen.terminal().draw(|frame| painter.draw(frame, &model)).map_err(no_terminal)?;
        let first = match input.recv_timeout(TICK) {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout) => Input::Tick,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // All that has come is taken in before it is drawn.
        for input in std::iter::once(first).chain(input.try_iter()) {
            match model.take(input, Instant::now()) {
                Some(Wish::Leave) => return Ok(()),
                Some(Wish::Fail) => return Err(Failure::Said),
                // Its thread lives as long as this loop.
                Some(wish) => wishes.send(wish).unwrap_or_default(),
                None => {}
            }
        }
    }
}

/// Starts a thread that brings news. It blocks on what may never come, and ends with the process; where it panics, all does.
fn beside(to: &Sender<Input>, work: impl FnOnce(&Sender<Input>) + Send + 'static) {
    let watched = Watched(to.clone());
    thread::spawn(move || work(&watched.0));
}

/// A thread's way to say something, which says so where the thread panics.
struct Watched(Sender<Input>);

impl Drop for Watched {
    fn drop(&mut self) {
        if thread::panicking() {
            // Where nobody listens all has ended already.
            let _ = self.0.send(Input::Broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_says_so_and_one_that_ends_does_not() {
        let (inputs, input) = mpsc::channel();
        beside(&inputs, |_| ());
        beside(&inputs, |_| panic!("as the test wants"));
        drop(inputs);
        let all: Vec<_> = input.iter().collect();
        assert!(matches!(all.as_slice(), [Input::Broken]), "{all:?}");
    }

    #[test]
    fn one_view_is_plain_text() {
        let mut value = sample::state(1.0);
        value["machines"][1]["trouble"]["text"] = "refused\u{1b}[31m".into();
        let seen = Seen::read(value).expect("a state");
        let mut out = Vec::new();
        print("127.0.0.1:9464", &seen, &mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        for part in [
            "seeway 0.1.0  ● ready",
            "Worlds\n",
            "Machines\n",
            "hsm-b",
            "▲ down",
            "connect failed: refused",
            "payments",
            "95 %",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'), "{text:?}");
    }
}
