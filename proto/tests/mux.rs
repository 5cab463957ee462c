//! Both ends of a stream: tags, limits, duplicates, strays, late replies, and what can be withdrawn.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seeway_proto::mux::{Answer, Broken, Incoming, Outgoing, Received, Refused, UnknownCommands};
use seeway_proto::wiped::{Spares, WipedBuffer};
use seeway_proto::wire::{self, Command, JobBytes, Limits, Profile, ReplyBody};

const LIMITS: Limits = Limits { max_job_bytes: 100 };

fn outgoing(max_in_flight: usize) -> Outgoing<u32> {
    Outgoing::new(Profile::open_1(), LIMITS, max_in_flight)
}

fn incoming(max_outstanding: usize) -> Incoming {
    Incoming::new(Profile::open_1(), LIMITS, max_outstanding)
}

fn sent(outgoing: &mut Outgoing<u32>) -> Vec<u8> {
    outgoing.take_output().map(|batch| batch.to_vec()).unwrap_or_default()
}

fn output(incoming: &mut Incoming) -> Vec<u8> {
    let mut taken = WipedBuffer::new();
    incoming.swap_output(&mut taken);
    taken.filled().to_vec()
}

/// All answers in `bytes`, as text.
fn answers(outgoing: &mut Outgoing<u32>, bytes: &[u8]) -> Result<Vec<(u32, String)>, Broken> {
    let mut input = bytes;
    let mut found = Vec::new();
    while let Some(Answer { token, reply, .. }) = outgoing.receive(&mut input)? {
        found.push((
            token,
            match reply {
                ReplyBody::Job(JobBytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                ReplyBody::NoOp => "no-op".into(),
                ReplyBody::Object(object) => format!("object {object}"),
                ReplyBody::Error { status, info } => format!("error {status} {}", info.unwrap_or_default()),
            },
        ));
    }
    Ok(found)
}

fn written(write: impl FnOnce(&Profile, &mut WipedBuffer)) -> Vec<u8> {
    let mut out = WipedBuffer::new();
    write(&Profile::open_1(), &mut out);
    out.filled().to_vec()
}

#[test]
fn replies_in_any_order_find_their_jobs() {
    let (mut asking, mut answering) = (outgoing(10), incoming(10));
    asking.stage_job(0, b"one", 1).expect("room");
    asking.stage_no_op(2).expect("room");
    asking.stage_get_published_object("signer", 3).expect("room");
    asking.stage_job(0, b"four", 4).expect("room");
    let bytes = sent(&mut asking);
    let mut input = &bytes[..];
    let mut asked = Vec::new();
    while let Some(request) = answering.next(&mut input).expect("valid") {
        asked.push(request);
    }
    assert_eq!((asked.len(), answering.outstanding()), (4, 4));
    for request in asked.into_iter().rev() {
        match request {
            Command::NoOp { tag } => answering.answer_no_op(tag),
            Command::SeeJob { tag, job, .. } => answering.answer_job(tag, job.0),
            Command::GetPublishedObject { tag, name } => {
                assert_eq!(name, "signer");
                answering.answer_object(tag, 77);
            }
        }
    }
    let replies = output(&mut answering);
    let found = answers(&mut asking, &replies).expect("valid");
    let expected = [(4, "four"), (3, "object 77"), (2, "no-op"), (1, "one")];
    assert_eq!(found, expected.map(|(token, text)| (token, text.to_owned())));
    assert_eq!((asking.in_flight(), answering.outstanding()), (0, 0));
}

#[test]
fn at_the_limit_and_one_past_it() {
    let mut asking = outgoing(2);
    asking.stage_no_op(1).expect("room");
    asking.stage_no_op(2).expect("room");
    assert!(!asking.has_room());
    assert_eq!(asking.stage_no_op(3), Err(Refused(3)));

    let bytes = [sent(&mut asking), written(|profile, out| wire::command_no_op(profile, out, 99))].concat();
    let mut answering = incoming(2);
    let mut input = &bytes[..];
    let Ok(Some(Command::NoOp { tag: first })) = answering.next(&mut input) else { panic!("a NoOp") };
    let Ok(Some(Command::NoOp { .. })) = answering.next(&mut input) else { panic!("a NoOp") };
    assert_eq!(answering.next(&mut input), Ok(None));
    assert!(!answering.has_room() && input.len() == 16, "the third stays in the input");
    answering.answer_no_op(first);
    assert_eq!(answering.next(&mut input), Ok(Some(Command::NoOp { tag: 99 })));
}

#[test]
fn a_tag_in_use_is_refused_and_the_first_job_is_not_disturbed() {
    let mut answering = incoming(10);
    let job = written(|profile, out| wire::command_see_job(profile, out, 5, 0, b"x"));
    let mut input = &[job.clone(), job.clone()].concat()[..];
    assert!(matches!(answering.next(&mut input), Ok(Some(Command::SeeJob { tag: 5, .. }))));
    assert_eq!(answering.next(&mut input), Ok(None));
    let statuses = Profile::open_1().statuses.clone();
    let refused = written(|p, out| wire::reply_error(p, out, 5, statuses.invalid_parameter, Some("tag in use")));
    assert_eq!(output(&mut answering), refused);
    answering.answer_job(5, b"y");
    assert_eq!(output(&mut answering), written(|profile, out| wire::reply_job(profile, out, 5, b"y")));
    assert!(matches!(answering.next(&mut &job[..]), Ok(Some(_))), "an answered tag may be used again");
}

/// A message with a command that no profile has.
fn unknown_command(tag: u32, flags: u32) -> Vec<u8> {
    [20, tag, 4711, flags, 0x0102_0304, 5].map(u32::to_le_bytes).concat()
}

#[test]
fn commands_that_are_passed_on_come_as_they_were_sent() {
    let job = written(|profile, out| wire::command_see_job(profile, out, 1, 9, b"job"));
    let unknown = unknown_command(2, u32::MAX);
    let bytes = [job.clone(), unknown.clone(), unknown_command(1, 0), job[..9].to_vec()].concat();
    let mut answering = incoming(10);
    let mut input = &bytes[..];
    let mut next = || answering.next_received(&mut input, UnknownCommands::Taken).expect("valid");
    let seen = next().expect("a job");
    assert_eq!((seen.tag, seen.message), (1, &job[..]));
    assert_eq!(seen.command, Some(Command::SeeJob { tag: 1, world: 9, job: JobBytes(b"job") }));
    assert_eq!(next(), Some(Received { tag: 2, command: None, message: &unknown }));
    assert_eq!(next(), None, "the third has a tag that is in use, the fourth is not whole");
    assert_eq!(input.len(), 9);
    let in_use = Profile::open_1().statuses.invalid_parameter;
    assert_eq!(output(&mut answering), written(|p, out| wire::reply_error(p, out, 1, in_use, Some("tag in use"))));
    answering.answer_with(2, b"somebody else's answer");
    assert_eq!((output(&mut answering), answering.outstanding()), (b"somebody else's answer".to_vec(), 1));
    assert!(!format!("{seen:?}").contains("106, 111, 98"), "a job's bytes are not shown");
}

#[test]
fn commands_that_nobody_knows_are_refused_where_none_are_passed_on() {
    let mut answering = incoming(10);
    assert_eq!(answering.next(&mut &unknown_command(2, 0)[..]), Ok(None));
    let refused = output(&mut answering);
    let mut again = incoming(10);
    assert_eq!(again.next_received(&mut &unknown_command(2, 0)[..], UnknownCommands::Refused), Ok(None));
    assert_eq!(output(&mut again), refused);
    let status = Profile::open_1().statuses.unknown_command;
    assert_eq!(refused, written(|p, out| wire::reply_error(p, out, 2, status, Some("no such command"))));
    assert_eq!(again.outstanding(), 0);
}

#[test]
fn every_row_of_bad_input_is_answered_on_its_tag_and_the_stream_goes_on() {
    let statuses = Profile::open_1().statuses.clone();
    let at_limit = written(|profile, out| wire::command_see_job(profile, out, 4, 0, &[1; 100]));
    let one_past = written(|profile, out| wire::command_see_job(profile, out, 4, 0, &[1; 101]));
    let over_message = written(|profile, out| wire::command_see_job(profile, out, 4, 0, &[1; 1000]));
    let malformed = [13_u32, 4, 1, 0].map(u32::to_le_bytes).concat();
    let cases = [
        ("one byte past max_job_bytes", one_past, statuses.buffer_full),
        ("past max_message", over_message, statuses.buffer_full),
        ("does not parse", [malformed, vec![0]].concat(), statuses.malformed),
        ("unknown cmd", [12_u32, 4, 9, 0].map(u32::to_le_bytes).concat(), statuses.unknown_command),
        ("flags set", [12_u32, 4, 1, 2].map(u32::to_le_bytes).concat(), statuses.invalid_parameter),
    ];
    for (what, bytes, status) in cases {
        let mut answering = incoming(10);
        let stream = [bytes, at_limit.clone()].concat();
        let mut input = &stream[..];
        let next = answering.next(&mut input);
        assert!(
            matches!(next, Ok(Some(Command::SeeJob { tag: 4, job, .. })) if job.0.len() == 100),
            "{what}: {next:?}"
        );
        let reply = output(&mut answering);
        let mut asked = outgoing(10);
        assert!(answers(&mut asked, &reply).is_err(), "{what}: it is a reply to tag 4, which nobody asked here");
        assert_eq!(reply[4..8], 4_u32.to_le_bytes(), "{what}");
        assert_eq!(reply[12..16], status.to_le_bytes(), "{what}");
    }
    for length in [0_u32, 11, wire::SKIP_LIMIT + 1] {
        assert!(incoming(10).next(&mut &length.to_le_bytes()[..]).is_err(), "a length of {length} ends the stream");
    }
}

#[test]
fn a_reply_past_the_limit_is_not_sent_and_not_called_not_run() {
    let mut answering = incoming(1);
    let job = written(|profile, out| wire::command_see_job(profile, out, 5, 0, b"x"));
    assert!(matches!(answering.next(&mut &job[..]), Ok(Some(_))));
    answering.answer_job(5, &[0; 101]);
    let status = Profile::open_1().statuses.see_world_failed;
    assert_eq!(output(&mut answering)[12..16], status.to_le_bytes());
}

#[test]
fn strays_twice_answered_and_answers_to_the_unsent_break_the_stream() {
    let mut asking = outgoing(10);
    let tag = asking.stage_no_op(1).expect("room").number();
    let reply = written(|profile, out| wire::reply_no_op(profile, out, tag));
    assert_eq!(answers(&mut asking, &reply), Err(Broken::StrayTag { tag }), "it is staged, nobody can have seen it");
    sent(&mut asking);
    assert_eq!(answers(&mut asking, &reply), Ok(vec![(1, "no-op".into())]));
    assert_eq!(answers(&mut asking, &reply), Err(Broken::StrayTag { tag }), "twice");
    asking.stage_job(0, b"next in the same place", 2).expect("room");
    sent(&mut asking);
    assert_eq!(answers(&mut asking, &reply), Err(Broken::StrayTag { tag }), "the old tag is not the new one's");
    let far = written(|profile, out| wire::reply_no_op(profile, out, 0xdead_beef));
    assert_eq!(answers(&mut asking, &far), Err(Broken::StrayTag { tag: 0xdead_beef }));
}

#[test]
fn a_reply_of_another_kind_breaks_the_stream() {
    let mut asking = outgoing(10);
    let tag = asking.stage_job(0, b"job", 1).expect("room").number();
    sent(&mut asking);
    let reply = written(|profile, out| wire::reply_no_op(profile, out, tag));
    assert_eq!(answers(&mut asking, &reply), Err(Broken::WrongKind { tag }));
}

#[test]
fn an_oversized_reply_costs_its_own_job_only() {
    let mut asking = outgoing(10);
    let first = asking.stage_job(0, b"a", 1).expect("room").number();
    let second = asking.stage_job(0, b"b", 2).expect("room").number();
    sent(&mut asking);
    let replies = [
        written(|profile, out| wire::reply_job(profile, out, first, &[0; 500])),
        written(|profile, out| wire::reply_job(profile, out, second, b"fine")),
    ]
    .concat();
    let found = answers(&mut asking, &replies).expect("the stream goes on");
    assert_eq!(found[0], (1, "error 10 the reply is larger than the limit".into()));
    assert_eq!(found[1], (2, "fine".into()));
}

#[test]
fn an_abandoned_tag_stays_taken_until_its_late_reply() {
    let mut asking = outgoing(1);
    let tag = asking.stage_job(0, b"slow", 1).expect("room");
    sent(&mut asking);
    assert_eq!(asking.wanted().collect::<Vec<_>>(), [&1]);
    assert_eq!(asking.abandon(tag), Some(1));
    assert_eq!(asking.abandon(tag), None);
    assert_eq!((asking.wanted().count(), asking.in_flight()), (0, 1));
    assert_eq!(asking.stage_no_op(2), Err(Refused(2)), "the tag is still taken");
    let reply = written(|profile, out| wire::reply_job(profile, out, tag.number(), b"late"));
    assert_eq!(answers(&mut asking, &reply), Ok(vec![]));
    assert_eq!((asking.in_flight(), asking.late_replies()), (0, 1));
    assert!(asking.stage_no_op(2).is_ok());
}

#[test]
fn only_what_has_not_left_can_be_withdrawn() {
    let mut asking = outgoing(10);
    let left = asking.stage_job(0, b"left", 1).expect("room");
    sent(&mut asking);
    let second = asking.stage_job(0, b"second", 2).expect("room");
    let third = asking.stage_job(0, b"third", 3).expect("room");
    assert_eq!(asking.withdraw(left), None);
    assert_eq!(asking.withdraw(second), Some(2));
    assert_eq!(asking.withdraw(second), None);
    assert_eq!(asking.in_flight(), 2);
    assert_eq!(asking.staged_len(), wire::see_job_message_len(b"third".len()));
    assert_eq!(
        sent(&mut asking),
        written(|profile, out| wire::command_see_job(profile, out, third.number(), 0, b"third"))
    );
}

/// Withdrawn one by one, a full stream's commands may not cost a pass over its bytes each.
#[test]
fn withdrawing_all_in_any_order_leaves_nothing_and_makes_room_at_once() {
    for order in [0_usize, 1, 7] {
        let mut asking = outgoing(64);
        let tags: Vec<_> = (0..64).map(|token| asking.stage_job(0, &[1; 50], token).expect("room")).collect();
        assert!(!asking.has_room());
        for step in 0..64 {
            // 0: from the front; 1: from the back; 7: all over.
            let index = if order == 0 { step } else { (63 + 64 * step - order * step) % 64 };
            assert_eq!(asking.withdraw(tags[index]), Some(u32::try_from(index).expect("small")), "{order}");
            assert_eq!(asking.in_flight(), 63 - step);
            assert!(asking.has_room());
        }
        assert!(asking.staged_len() == 0 && asking.take_output().is_none());
    }
    let mut asking = outgoing(2);
    asking.stage_no_op(1).expect("room");
    let gone = asking.stage_no_op(2).expect("room");
    asking.withdraw(gone);
    let next = asking.stage_no_op(3).expect("the withdrawn one's room");
    assert_ne!(gone, next);
    assert_eq!(asking.take_output().map(|bytes| bytes.len()), Some(32));
}

#[test]
fn a_reply_of_the_largest_size_and_one_past_it() {
    let mut asking = outgoing(2);
    let at = asking.stage_job(0, b"a", 1).expect("room").number();
    let past = asking.stage_job(0, b"b", 2).expect("room").number();
    sent(&mut asking);
    let replies = [
        written(|profile, out| wire::reply_job(profile, out, at, &[b'x'; 100])),
        written(|profile, out| wire::reply_job(profile, out, past, &[b'x'; 101])),
    ]
    .concat();
    let found = answers(&mut asking, &replies).expect("the stream goes on");
    assert_eq!(found, [(1, "x".repeat(100)), (2, "error 10 the reply is larger than the limit".into())]);
}

#[test]
fn at_the_end_the_unsent_come_back_with_their_bytes_and_the_sent_without() {
    let mut asking = outgoing(10);
    let gone = asking.stage_job(0, b"sent and abandoned", 1).expect("room");
    asking.stage_job(0, b"sent", 2).expect("room");
    sent(&mut asking);
    asking.abandon(gone);
    asking.stage_job(0, b"unsent", 3).expect("room");
    asking.stage_no_op(4).expect("room");
    let (mut unsent, mut sent) = (Vec::new(), Vec::new());
    asking.close(|token, job| unsent.push((token, job.to_vec())), |token| sent.push(token));
    assert_eq!(unsent, [(3, b"unsent".to_vec()), (4, Vec::new())]);
    assert_eq!(sent, [2]);
}

proptest! {
    /// Whatever is staged, taken, answered, abandoned and withdrawn in whatever order: each job is answered at most once,
    /// with its own bytes, and the table is empty when all is quiet.
    #[test]
    fn a_long_life(steps in prop::collection::vec((0_u8..6, any::<prop::sample::Index>()), 1..400)) {
        let mut asking = outgoing(8);
        let mut answering = incoming(8);
        let mut tags = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        let mut taken: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut next = 0_u32;
        for (step, index) in steps {
            match step {
                0 | 1 => {
                    if let Ok(tag) = asking.stage_job(0, &next.to_le_bytes(), next) {
                        tags.insert(next, tag);
                        waiting.insert(next);
                    }
                    next += 1;
                }
                2 => {
                    let bytes = sent(&mut asking);
                    let mut input = &bytes[..];
                    while let Some(request) = answering.next(&mut input).expect("valid") {
                        let Command::SeeJob { tag, job, .. } = request else { panic!("a job") };
                        taken.push((tag, job.0.to_vec()));
                    }
                    prop_assert!(input.is_empty(), "the answering end has as much room");
                }
                3 if !taken.is_empty() => {
                    let (tag, job) = taken.swap_remove(index.index(taken.len()));
                    answering.answer_job(tag, &job);
                    let replies = output(&mut answering);
                    let mut input = &replies[..];
                    while let Some(answer) = asking.receive(&mut input).expect("valid") {
                        let expected = answer.token.to_le_bytes();
                        prop_assert_eq!(answer.reply, ReplyBody::Job(JobBytes(&expected)));
                        prop_assert!(waiting.remove(&answer.token), "answered once");
                    }
                }
                4 if !tags.is_empty() => {
                    let token = *index.get(&tags.keys().copied().collect::<Vec<_>>());
                    if asking.abandon(tags[&token]).is_some() {
                        prop_assert!(waiting.remove(&token));
                    }
                }
                5 if !tags.is_empty() => {
                    let token = *index.get(&tags.keys().copied().collect::<Vec<_>>());
                    if asking.withdraw(tags[&token]) == Some(token) {
                        prop_assert!(waiting.remove(&token));
                    }
                }
                _ => {}
            }
        }
        let rest = sent(&mut asking);
        let mut input = &rest[..];
        while let Some(Command::SeeJob { tag, job, .. }) = answering.next(&mut input).expect("valid") {
            taken.push((tag, job.0.to_vec()));
        }
        for (tag, job) in taken {
            answering.answer_job(tag, &job);
        }
        let replies = output(&mut answering);
        let mut input = &replies[..];
        while let Some(answer) = asking.receive(&mut input).expect("valid") {
            prop_assert!(waiting.remove(&answer.token));
        }
        prop_assert!(waiting.is_empty(), "{:?} never answered", waiting);
        prop_assert_eq!((asking.in_flight(), answering.outstanding()), (0, 0));
    }

    #[test]
    fn no_bytes_make_either_end_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut answering = incoming(4);
        let mut input = &bytes[..];
        while let Ok(Some(_)) = answering.next(&mut input) {}
        let mut asking = outgoing(4);
        asking.stage_job(0, b"job", 1).expect("room");
        sent(&mut asking);
        let mut input = &bytes[..];
        while let Ok(Some(_)) = asking.receive(&mut input) {}
    }
}

#[test]
fn streams_that_share_buffers_use_each_others() {
    let spares = Spares::new(1, 1000);
    spares.put_back(WipedBuffer::with_capacity(1000));
    let mut asking = outgoing(10).with_spares(spares.clone());
    asking.stage_job(0, b"one", 1).expect("room");
    assert_eq!(spares.take().capacity(), 0, "it is in use");
    drop(asking.take_output());
    let lent = spares.take();
    assert_eq!((lent.capacity(), lent.len()), (1000, 0), "it has come back, empty");
    spares.put_back(lent);

    // Of the answering end only large answers go into one.
    let mut answering = incoming(10).with_spares(spares.clone(), 50);
    let asked = |tag| written(|profile, out| wire::command_see_job(profile, out, tag, 0, b"job"));
    for (tag, reply, is_large) in [(1, 50, false), (2, 51, true), (3, 1, false)] {
        answering.next(&mut &asked(tag)[..]).expect("a command").expect("a whole one");
        answering.answer_job(tag, &vec![1; reply]);
        let in_use = spares.take();
        assert_eq!(in_use.capacity() == 0, is_large, "a reply of {reply} bytes");
        spares.put_back(in_use);
        let count = answering.output_len();
        assert!(!answering.taken(count - 1) && answering.taken(1));
        assert_eq!(spares.take().capacity(), 1000, "a reply of {reply} bytes");
        spares.put_back(WipedBuffer::with_capacity(1000));
    }
}
