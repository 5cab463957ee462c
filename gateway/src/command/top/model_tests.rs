//! Tests of the state machine: no terminal, no gateway, and a time that goes as the tests want.

use super::super::sample;
use super::*;

fn seen(time: f64, change: impl Fn(&mut serde_json::Value)) -> Input {
    let mut state = sample::state(time);
    change(&mut state);
    Input::Seen(Box::new(Seen::read(state).expect("a state")))
}

/// One that has heard the sample.
fn model() -> (Model, Instant) {
    let now = Instant::now();
    let mut model = Model::new("127.0.0.1:9464", now);
    assert_eq!(model.take(seen(1.0, |_| ()), now), None);
    (model, now)
}

fn press(model: &mut Model, keys: &[Key]) -> Vec<Wish> {
    let now = model.now;
    keys.iter().filter_map(|key| model.take(Input::Key(*key), now)).collect()
}

fn letter(letter: char) -> Key {
    Key::Letter(letter)
}

#[test]
fn a_machine_is_drained_after_a_yes_and_not_before() {
    let (mut model, now) = model();
    assert_eq!(press(&mut model, &[Key::Down, letter('d')]), []);
    assert_eq!(model.asks.as_ref().map(Change::question).as_deref(), Some("Drain machine hsm-b?"));
    // Neither other keys nor news answer it, nor do they change what is asked.
    let fewer = |state: &mut serde_json::Value| {
        state["machines"].as_array_mut().expect("machines").pop();
    };
    model.take(seen(2.0, fewer), now);
    assert_eq!(press(&mut model, &[letter('x'), Key::Up, Key::Enter]), []);
    let drain = Change { drains: true, machine: Some("hsm-b".into()) };
    assert_eq!(press(&mut model, &[letter('y')]), [Wish::Change(drain)]);
    assert_eq!(press(&mut model, &[letter('y')]), [], "once");
    model.take(Input::Changed(Ok("machine hsm-b takes no new jobs\u{1b}".into())), now);
    assert_eq!(model.said.as_ref().map(|said| said.text.as_str()), Some("machine hsm-b takes no new jobs\u{fffd}"));
}

#[test]
fn no_is_no() {
    for no in [letter('n'), Key::Escape, letter('q')] {
        let (mut model, _) = model();
        assert_eq!(press(&mut model, &[letter('D'), no, letter('y')]), [], "{no:?}");
        assert_eq!(model.asks, None);
    }
    let (mut model, _) = model();
    assert_eq!(press(&mut model, &[letter('R'), Key::Interrupt]), [Wish::Leave]);
    let resume = Change { drains: false, machine: None };
    assert_eq!(press(&mut model, &[letter('R'), letter('y')]), [Wish::Change(resume)]);
}

#[test]
fn where_nothing_may_be_changed_it_says_why_and_asks_nothing() {
    let (mut model, now) = model();
    let refused = |state: &mut serde_json::Value| {
        state["may_change"] = false.into();
        state["why_not"] = "changes are asked for at listen.management".into();
    };
    model.take(seen(2.0, refused), now);
    for key in ['d', 'r', 'D', 'R'] {
        assert_eq!(press(&mut model, &[letter(key), letter('y')]), []);
        press(&mut model, &[letter(key)]);
        assert_eq!(model.asks, None);
        let said = model.said.clone().expect("a reason");
        assert!(said.is_bad && said.text.contains("listen.management"), "{said:?}");
    }
    let mut deaf = Model::new("here", now);
    assert_eq!(press(&mut deaf, &[letter('d'), letter('y'), letter('D'), letter('y'), Key::Enter, Key::Down]), []);
}

#[test]
fn what_is_chosen_stays_chosen_while_rows_move() {
    let (mut model, now) = model();
    press(&mut model, &[Key::Down, Key::Down, Key::Down]);
    assert_eq!(model.chosen(MACHINES), Some(1));
    let turned = |state: &mut serde_json::Value| state["machines"].as_array_mut().expect("machines").reverse();
    model.take(seen(2.0, turned), now);
    assert_eq!(model.chosen(MACHINES), Some(0));
    let none = |state: &mut serde_json::Value| state["machines"] = serde_json::json!([]);
    model.take(seen(3.0, none), now);
    assert_eq!(model.chosen(MACHINES), None);
    assert_eq!(press(&mut model, &[Key::Enter, letter('d'), Key::Last, Key::PageDown]), []);
    assert!(model.page.is_none() && model.asks.is_none());
}

#[test]
fn panes_go_round() {
    let (mut model, _) = model();
    let panes: Vec<_> = (0..4)
        .map(|_| {
            press(&mut model, &[Key::NextPane]);
            model.pane
        })
        .collect();
    assert_eq!(panes, [2, 3, 0, 1]);
    press(&mut model, &[Key::PreviousPane]);
    assert_eq!(model.pane, 0);
    press(&mut model, &[letter('j'), letter('G'), letter('k'), letter('g')]);
    assert_eq!((model.chosen(0), model.chosen(MACHINES)), (Some(0), Some(0)));
}

#[test]
fn a_machines_page_asks_for_its_history_when_there_is_more() {
    let (mut model, now) = model();
    let ask = || Wish::History("hsm-a".into());
    assert_eq!(press(&mut model, &[Key::Enter]), [ask()]);
    assert_eq!(model.take(seen(2.0, |_| ()), now), None, "it was asked for");
    let happening = || Happening { time: 1.0, shard: None, what: "drained".into(), text: String::new() };
    model.take(Input::Happened("hsm-b".into(), Ok(vec![happening()])), now);
    assert!(model.page.as_ref().is_some_and(|page| page.history.is_none()), "that was another machine's");
    model.take(Input::Happened("hsm-a".into(), Ok(vec![happening(), happening()])), now);
    assert_eq!(model.take(seen(3.0, |_| ()), now), None, "nothing has happened");
    let more = |state: &mut serde_json::Value| state["machines"][0]["happenings"] = 2.into();
    assert_eq!(model.take(seen(4.0, more), now), Some(ask()));
    press(&mut model, &[Key::Down, Key::Down, Key::Down]);
    assert_eq!(model.page.as_ref().map(|page| page.scrolled), Some(1));
    // Drain means this machine, and Escape goes back before it leaves.
    press(&mut model, &[letter('d')]);
    assert_eq!(model.asks.as_ref().and_then(|change| change.machine.as_deref()), Some("hsm-a"));
    assert_eq!(press(&mut model, &[letter('n'), Key::Escape]), []);
    assert_eq!(press(&mut model, &[Key::Escape]), [Wish::Leave]);
}

#[test]
fn it_says_since_when_it_has_heard_nothing() {
    let (mut model, now) = model();
    let later = |seconds| now + Duration::from_secs(seconds);
    model.take(Input::Tick, later(2));
    assert_eq!(model.silence(), None);
    model.take(Input::Tick, later(7));
    assert_eq!(model.silence().as_deref(), Some("nothing heard for 7 s, trying again"));
    model.take(Input::Silent("no gateway answers\u{1b}".into()), later(65));
    let silence = model.silence().expect("silence");
    assert_eq!(silence, "nothing heard for 1 min 5 s, trying again: no gateway answers\u{fffd}");
    model.take(seen(66.0, |_| ()), later(66));
    assert_eq!(model.silence(), None);
}

#[test]
fn help_comes_and_goes() {
    let (mut model, _) = model();
    assert_eq!(press(&mut model, &[letter('?')]), []);
    assert!(model.shows_help);
    assert_eq!(press(&mut model, &[letter('d')]), []);
    assert!(!model.shows_help && model.asks.is_none());
    assert_eq!(press(&mut model, &[letter('q')]), [Wish::Leave]);
    assert_eq!(model.take(Input::Leave, Instant::now()), Some(Wish::Leave));
    assert_eq!(model.take(Input::Broken, Instant::now()), Some(Wish::Fail));
}
