//! Tests of what is drawn, on a terminal that is only memory, at many sizes.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::{Input, Key, Wish};
use super::super::sample;
use super::super::seen::Seen;
use super::*;
use crate::admin::state::Happening;

fn seen(time: f64, change: impl Fn(&mut serde_json::Value)) -> Input {
    let mut state = sample::state(time);
    change(&mut state);
    Input::Seen(Box::new(Seen::read(state).expect("a state")))
}

fn model() -> Model {
    let now = Instant::now();
    let mut model = Model::new("127.0.0.1:9464", now);
    for second in 1..100 {
        model.take(seen(f64::from(second), |_| ()), now);
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    terminal.draw(|frame| Painter { has_colours: true }.draw(frame, model)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width.max(1)));
    rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n").collect()
}

fn press(model: &mut Model, keys: &[Key]) {
    for key in keys {
        model.take(Input::Key(*key), Instant::now());
    }
}

#[test]
fn an_ordinary_terminal_shows_everything_that_matters() {
    let screen = drawn(&model(), 80, 24);
    for part in [
        "seeway 0.1.0  ● ready  127.0.0.1:9464",
        "up 1 h 1 min",
        "in hand 5  waiting 2",
        "jobs/s 1000",
        "p50 2.00 ms",
        "p99    4.00 ms",
        "██████",
        "signer",
        "› hsm-a",
        "▲ down",
        "3/64",
        "1 backing off, 2 ready",
        "payments",
        "95 %",
        "q leave",
    ] {
        assert!(screen.contains(part), "{part:?} is not in\n{screen}");
    }
}

#[test]
fn questions_answers_and_troubles_are_in_the_last_row() {
    let last = |model: &Model| drawn(model, 80, 24).lines().last().map(|line| line.trim_end().to_owned());
    let mut model = model();
    press(&mut model, &[Key::Down]);
    assert_eq!(last(&model).as_deref(), Some("hsm-b: connect failed: Connection refused"));
    press(&mut model, &[Key::Letter('d')]);
    assert_eq!(last(&model).as_deref(), Some("Drain machine hsm-b? y/n"));
    let long = "a reason that is so long that it has no room in one row of eighty columns and goes on in the next one";
    press(&mut model, &[Key::Letter('y')]);
    model.take(Input::Changed(Err(long.into())), Instant::now());
    assert_eq!(last(&model).as_deref(), Some("goes on in the next one"));
    let now = Instant::now();
    model.take(Input::Changed(Err("it is not there".into())), now);
    assert_eq!(last(&model).as_deref(), Some("! it is not there"));
    press(&mut model, &[Key::Up]);
    model.take(Input::Tick, now + Duration::from_secs(60));
    assert!(last(&model).is_some_and(|last| last.starts_with("! nothing heard for 1 min")), "{:?}", last(&model));
    assert!(drawn(&model, 80, 24).contains("● ready  OLD"));
}

#[test]
fn a_machines_page_has_its_counts_and_its_history() {
    let mut model = model();
    press(&mut model, &[Key::Down, Key::Enter]);
    let happening =
        |time, text: &str| Happening { time, shard: Some(0), what: "tunnel_lost".into(), text: text.into() };
    let history = vec![happening(1_800_000_002.0, "reset by peer"), happening(1_800_000_000.0, "before it")];
    model.take(Input::Happened("hsm-b".into(), Ok(history)), Instant::now());
    let screen = drawn(&model, 80, 24);
    for part in [
        "Machine hsm-b  ▲ down  127.0.0.1:22  worlds signer",
        "connect failed: Connection refused",
        "tunnels 1 backing off, 2 ready  channels 2  in flight 3 of 64",
        "made 2  failed 1",
        "01-15 08:00:02Z  shard 0  tunnel lost        reset by peer",
    ] {
        assert!(screen.contains(part), "{part:?} is not in\n{screen}");
    }
    press(&mut model, &[Key::Down]);
    assert!(!drawn(&model, 80, 24).contains("reset by peer"));
    model.take(seen(200.0, |state| state["machines"] = serde_json::json!([])), Instant::now());
    assert!(drawn(&model, 80, 24).contains("has it no more"));
}

#[test]
fn without_colours_there_are_none_and_nothing_is_lost() {
    let model = model();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("memory");
    terminal.draw(|frame| Painter { has_colours: false }.draw(frame, &model)).expect("drawn");
    let buffer = terminal.backend().buffer();
    assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let text: String = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
    assert_eq!(text, drawn(&model, 80, 24).replace('\n', ""));
}

#[test]
fn a_pane_of_many_rows_keeps_the_chosen_one_on_the_screen() {
    let mut model = model();
    let many = |state: &mut serde_json::Value| {
        let machine = state["machines"][0].clone();
        let machines = (0..100).map(|number| {
            let mut machine = machine.clone();
            machine["name"] = format!("hsm-{number:03}").into();
            machine
        });
        state["machines"] = machines.collect();
    };
    model.take(seen(200.0, many), Instant::now());
    press(&mut model, &[Key::Last]);
    let screen = drawn(&model, 80, 24);
    assert!(screen.contains("› hsm-099") && screen.contains("(+"), "{screen}");
    assert!(screen.contains("signer") && screen.contains("payments") && screen.contains("95 %"), "{screen}");
}

#[test]
fn nothing_that_a_terminal_obeys_is_drawn() {
    let mut model = model();
    let hostile = |state: &mut serde_json::Value| {
        for place in ["/machines/0/name", "/worlds/0/name", "/callers/busiest/0/who", "/limits/0/limit", "/version"] {
            *state.pointer_mut(place).expect("it is there") = "x\u{1b}[2J\u{7}\u{9b}y\u{202e}".into();
        }
    };
    model.take(seen(200.0, hostile), Instant::now());
    let screen = drawn(&model, 120, 40);
    assert!(screen.contains("x\u{fffd}[2J\u{fffd}\u{fffd}y"), "{screen}");
    assert!(
        !screen.contains(|letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}'),
        "{screen:?}"
    );
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        prop::sample::select(vec![
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::First,
            Key::Last,
            Key::NextPane,
            Key::PreviousPane,
            Key::Enter,
            Key::Escape,
        ]),
        prop::sample::select("dryn?mDRgGjkx".chars().collect::<Vec<_>>()).prop_map(Key::Letter),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z-]{1,12}", "\\PC{0,40}", any::<String>(), "日本{0,30}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_size_no_key_and_no_name_makes_it_panic(
        sizes in prop::collection::vec((1_u16..140, 1_u16..50), 1..8),
        keys in prop::collection::vec(any_key(), 0..20),
        names in prop::collection::vec(any_name(), 0..30),
    ) {
        let now = Instant::now();
        let mut model = Model::new(names.first().map_or("", String::as_str), now);
        for (width, height) in &sizes {
            drawn(&model, *width, *height);
        }
        let named = |state: &mut serde_json::Value| {
            let machine = state["machines"][1].clone();
            let with_name = |name: &String| {
                let mut machine = machine.clone();
                (machine["name"], machine["address"]) = (name.as_str().into(), name.as_str().into());
                machine["trouble"]["text"] = name.as_str().into();
                machine
            };
            state["machines"] = names.iter().map(with_name).collect();
        };
        model.take(seen(1.0, named), now);
        for key in keys {
            if let Some(Wish::History(name)) = model.take(Input::Key(key), now) {
                let happening = |text: &String| Happening { time: f64::MAX, shard: None, what: text.clone(), text: text.clone() };
                model.take(Input::Happened(name, Ok(names.iter().map(happening).collect())), now);
            }
            for (width, height) in &sizes {
                drawn(&model, *width, *height);
            }
        }
    }
}

#[test]
fn every_small_size_is_drawn() {
    let mut model = model();
    for keys in [&[][..], &[Key::Enter], &[Key::Letter('?')], &[Key::Letter('x'), Key::Letter('d')]] {
        press(&mut model, keys);
        for width in 1..30 {
            for height in 1..30 {
                drawn(&model, width, height);
            }
        }
    }
    assert!(drawn(&model, 30, 1).contains("Drain machine hsm-a? y/n"));
}
