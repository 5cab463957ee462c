//! What `top` knows and does, as a plain state machine: keys, news and the time go in, wishes come out. It has no terminal, no
//! connection and no clock; `mod.rs` brings it what it needs, and `draw` shows it.

use std::time::{Duration, Instant};

use super::seen::{Plots, Seen};
use super::tables::{Table, tables};
use crate::admin::state::{Happening, Machine};
use crate::command::operator::clean;

/// After how long without news what is shown is said to be old: the gateway speaks each second.
const OLD: Duration = Duration::from_secs(3);

/// How far the keys for a page go.
const PAGE: usize = 10;

/// A key, as far as it means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    NextPane,
    PreviousPane,
    Enter,
    Escape,
    Interrupt,
    Letter(char),
}

/// What comes in.
#[derive(Debug)]
pub(super) enum Input {
    Key(Key),
    /// The terminal has another size.
    Resized,
    /// The state, each second.
    Seen(Box<Seen>),
    /// What the gateway remembers of the minutes before.
    Remembered(Box<Plots>),
    /// Why nothing is heard.
    Silent(String),
    /// A machine's history, the newest first, or why there is none.
    Happened(String, Result<Vec<Happening>, String>),
    /// What came of a change, or why nothing did.
    Changed(Result<String, String>),
    /// Time has passed.
    Tick,
    /// Somebody wants this process to end, or the terminal is gone.
    Leave,
    /// A thread that brings news has panicked, and has said so.
    Broken,
}

/// Draining or resuming a machine, or the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) drains: bool,
    pub(super) machine: Option<String>,
}

impl Change {
    /// Such as `Drain machine hsm-a?`
    pub(super) fn question(&self) -> String {
        let verb = if self.drains { "Drain" } else { "Resume" };
        match &self.machine {
            Some(machine) => format!("{verb} machine {machine}?"),
            None => format!("{verb} the whole gateway?"),
        }
    }
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Leave,
    /// To leave as one that has failed.
    Fail,
    History(String),
    Change(Change),
}

/// A sentence for whoever looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// One machine, looked at closely.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) name: String,
    pub(super) history: Option<Result<Vec<Happening>, String>>,
    /// How many of the newest happenings are above the screen.
    pub(super) scrolled: usize,
    /// How much had happened to it when its history was asked for.
    asked_at: u64,
    /// Its history was asked for and has not come.
    is_asked: bool,
}

/// What was chosen in a pane: a row by its key, and where it was.
#[derive(Clone, Debug, Default)]
struct Choice {
    key: Option<String>,
    row: usize,
}

/// Everything that is shown.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Where the gateway is, as it was given.
    pub(super) place: String,
    pub(super) seen: Option<Seen>,
    pub(super) tables: Option<[Table; 4]>,
    pub(super) plots: Plots,
    /// The pane that keys go to.
    pub(super) pane: usize,
    choices: [Choice; 4],
    pub(super) page: Option<Page>,
    /// What is asked to be confirmed.
    pub(super) asks: Option<Change>,
    pub(super) said: Option<Said>,
    pub(super) shows_help: bool,
    /// Why nothing is heard, where somebody knows.
    silent: Option<String>,
    /// When something was heard last; at first when it was begun to listen.
    heard: Instant,
    now: Instant,
}

/// The pane of machines.
pub(super) const MACHINES: usize = 1;

impl Model {
    /// One that has heard nothing yet.
    pub(super) fn new(place: &str, now: Instant) -> Self {
        Self {
            place: clean(place),
            seen: None,
            tables: None,
            plots: Plots::default(),
            pane: MACHINES,
            choices: Default::default(),
            page: None,
            asks: None,
            said: None,
            shows_help: false,
            silent: None,
            heard: now,
            now,
        }
    }

    /// Takes in what has come, and says what is to be done.
    pub(super) fn take(&mut self, input: Input, now: Instant) -> Option<Wish> {
        self.now = now;
        match input {
            Input::Key(key) => return self.key(key),
            Input::Leave => return Some(Wish::Leave),
            Input::Broken => return Some(Wish::Fail),
            Input::Resized | Input::Tick => {}
            Input::Seen(seen) => {
                self.plots.push(&seen.state);
                self.tables = Some(tables(&seen.state));
                self.seen = Some(*seen);
                (self.heard, self.silent) = (now, None);
                return self.history();
            }
            Input::Remembered(plots) => {
                self.plots = *plots;
                if let Some(seen) = &self.seen {
                    self.plots.push(&seen.state);
                }
            }
            Input::Silent(why) => self.silent = Some(clean(&why)),
            Input::Happened(name, history) => {
                if let Some(page) = self.page.as_mut().filter(|page| page.name == name) {
                    page.history = Some(history.map_err(|why| clean(&why)));
                    page.is_asked = false;
                }
            }
            Input::Changed(Ok(text)) => self.say(&text, false),
            Input::Changed(Err(text)) => self.say(&text, true),
        }
        None
    }

    /// Since when nothing is heard and why, where that is so.
    pub(super) fn silence(&self) -> Option<String> {
        let since = self.now.saturating_duration_since(self.heard);
        if self.silent.is_none() && since < OLD {
            return None;
        }
        let time = super::text::lasting(since);
        let why = self.silent.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        Some(format!("nothing heard for {time}, trying again{why}"))
    }

    /// The chosen row of a pane; `None` where it has none.
    pub(super) fn chosen(&self, pane: usize) -> Option<usize> {
        let table = &self.tables.as_ref()?[pane];
        let choice = &self.choices[pane];
        let found = choice.key.as_ref().and_then(|key| table.rows.iter().position(|row| row.key == *key));
        found.or_else(|| table.rows.len().checked_sub(1).map(|last| choice.row.min(last)))
    }

    /// The machine whose page this is.
    pub(super) fn machine(&self, page: &Page) -> Option<&Machine> {
        self.seen.as_ref()?.state.machines.iter().find(|machine| machine.name == page.name)
    }

    fn chosen_key(&self, pane: usize) -> Option<String> {
        let row = self.chosen(pane)?;
        Some(self.tables.as_ref()?[pane].rows.get(row)?.key.clone())
    }

    fn key(&mut self, key: Key) -> Option<Wish> {
        if key == Key::Interrupt {
            return Some(Wish::Leave);
        }
        if let Some(change) = self.asks.take() {
            return self.confirmed(change, key);
        }
        if self.shows_help {
            self.shows_help = false;
            return None;
        }
        self.said = None;
        match key {
            Key::Letter('q') => return Some(Wish::Leave),
            Key::Letter('?') => self.shows_help = true,
            Key::Letter('d') => self.ask_machine(true),
            Key::Letter('r') => self.ask_machine(false),
            Key::Letter('D') => self.ask(Change { drains: true, machine: None }),
            Key::Letter('R') => self.ask(Change { drains: false, machine: None }),
            // From a machine's page it goes back.
            Key::Escape if self.page.take().is_none() => return Some(Wish::Leave),
            Key::Enter | Key::Letter('m') if self.page.is_none() => return self.open(),
            Key::Up | Key::Letter('k') => self.go(|row| row.saturating_sub(1)),
            Key::Down | Key::Letter('j') => self.go(|row| row.saturating_add(1)),
            Key::PageUp => self.go(|row| row.saturating_sub(PAGE)),
            Key::PageDown => self.go(|row| row.saturating_add(PAGE)),
            Key::First | Key::Letter('g') => self.go(|_| 0),
            Key::Last | Key::Letter('G') => self.go(|_| usize::MAX),
            Key::NextPane if self.page.is_none() => self.pane = (self.pane + 1) % 4,
            Key::PreviousPane if self.page.is_none() => self.pane = (self.pane + 3) % 4,
            _ => {}
        }
        None
    }

    /// Goes to another row, of the page or of the pane.
    fn go(&mut self, to: impl Fn(usize) -> usize) {
        if let Some(page) = &mut self.page {
            let all = page.history.as_ref().and_then(|history| history.as_ref().ok()).map_or(0, Vec::len);
            page.scrolled = to(page.scrolled).min(all.saturating_sub(1));
            return;
        }
        let (Some(row), Some(tables)) = (self.chosen(self.pane), &self.tables) else { return };
        let rows = &tables[self.pane].rows;
        let row = to(row).min(rows.len().saturating_sub(1));
        self.choices[self.pane] = Choice { key: rows.get(row).map(|row| row.key.clone()), row };
    }

    /// Opens the chosen machine's page.
    fn open(&mut self) -> Option<Wish> {
        let Some(name) = self.chosen_key(MACHINES) else {
            self.say("there is no machine to show", true);
            return None;
        };
        self.page = Some(Page { name, history: None, scrolled: 0, asked_at: 0, is_asked: false });
        self.history()
    }

    /// Asks for the history of the page's machine where it has none or more has happened.
    fn history(&mut self) -> Option<Wish> {
        let page = self.page.as_ref()?;
        let happenings = self.machine(page).map_or(0, |machine| machine.happenings);
        let page = self.page.as_mut()?;
        if page.is_asked || (page.history.is_some() && page.asked_at == happenings) {
            return None;
        }
        (page.is_asked, page.asked_at) = (true, happenings);
        Some(Wish::History(page.name.clone()))
    }

    fn ask_machine(&mut self, drains: bool) {
        let machine = self.page.as_ref().map(|page| page.name.clone()).or_else(|| self.chosen_key(MACHINES));
        match machine {
            Some(machine) => self.ask(Change { drains, machine: Some(machine) }),
            None => self.say("there is no machine to choose", true),
        }
    }

    fn ask(&mut self, change: Change) {
        match &self.seen {
            None => self.say("nothing has been heard of the gateway yet", true),
            Some(seen) if !seen.may_change => {
                let why = seen.why_not.clone().unwrap_or_else(|| "the gateway takes no changes here".to_owned());
                self.say(&why, true);
            }
            Some(_) => {
                self.said = None;
                self.asks = Some(change);
            }
        }
    }

    fn confirmed(&mut self, change: Change, key: Key) -> Option<Wish> {
        match key {
            Key::Letter('y' | 'Y') => {
                self.say("asking the gateway …", false);
                Some(Wish::Change(change))
            }
            Key::Letter('n' | 'N' | 'q') | Key::Escape => {
                self.say("nothing was changed", false);
                None
            }
            // A key that was meant for something else answers nothing.
            _ => {
                self.asks = Some(change);
                None
            }
        }
    }

    fn say(&mut self, text: &str, is_bad: bool) {
        self.said = Some(Said { text: clean(text.trim_end()), is_bad });
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
