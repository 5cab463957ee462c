//! The terminal: taken when `top` begins, read for keys, and given back however `top` ends.

use std::io;
use std::sync::mpsc::Sender;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use super::model::{Input, Key};
use crate::command::block_on;

/// The terminal while it is ours. A panic gives it back before it says anything; everything else does when this is dropped.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes it: no echo, a screen of its own.
    pub(super) fn take() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // What was taken of it before that.
                ratatui::restore();
                Err(error)
            }
        }
    }

    /// What to draw on.
    pub(super) fn terminal(&mut self) -> &mut DefaultTerminal {
        &mut self.0
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Tells of keys until nobody listens or there is no terminal any more.
pub(super) fn listen(to: &Sender<Input>) {
    loop {
        let input = match event::read() {
            Ok(Event::Key(event)) => key(event).map(Input::Key),
            Ok(Event::Resize(..)) => Some(Input::Resized),
            Ok(_) => None,
            Err(_) => Some(Input::Leave),
        };
        let is_last = matches!(input, Some(Input::Leave));
        if input.is_some_and(|input| to.send(input).is_err()) || is_last {
            return;
        }
    }
}

/// Tells when somebody wants this process to end, or the terminal is gone.
pub(super) fn listen_for_signals(to: &Sender<Input>) {
    // Without it a signal ends the process as it ends any other.
    let _ = block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Where nobody listens it has ended already.
        let _ = to.send(Input::Leave);
        io::Result::Ok(())
    });
}

/// What a key means.
fn key(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let with_control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if with_control => Key::Interrupt,
        KeyCode::Char(_) if with_control || event.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(letter) => Key::Letter(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Tab | KeyCode::Right => Key::NextPane,
        KeyCode::BackTab | KeyCode::Left => Key::PreviousPane,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let pressed = |code, modifiers| key(KeyEvent::new(code, modifiers));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(pressed(KeyCode::Char('d'), KeyModifiers::CONTROL), None, "Ctrl-D drains nothing");
        assert_eq!(pressed(KeyCode::Char('D'), KeyModifiers::SHIFT), Some(Key::Letter('D')));
        assert_eq!(pressed(KeyCode::Tab, KeyModifiers::NONE), Some(Key::NextPane));
        assert_eq!(pressed(KeyCode::F(1), KeyModifiers::NONE), None);
        let released = KeyEvent::new_with_kind(KeyCode::Enter, KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(key(released), None);
    }
}
