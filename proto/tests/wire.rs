//! The wire's specification as tests: its vectors byte by byte, what does not parse, and properties for any bytes.

use proptest::prelude::*;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{
    self, BadCommand, Command, Direction, Fault, Frame, Framer, JobBytes, Limits, Profile, Reply, ReplyBody,
    decode_command, decode_reply,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}

fn encoded(write: impl FnOnce(&Profile, &mut WipedBuffer)) -> Vec<u8> {
    let mut out = WipedBuffer::new();
    write(&Profile::open_1(), &mut out);
    out.filled().to_vec()
}

fn body_of(message: &[u8], direction: Direction) -> &[u8] {
    let mut input = message;
    match Framer::new(direction, Limits::default()).next(&mut input) {
        Ok(Some(Frame::Body(body))) if input.is_empty() => body,
        other => panic!("not one whole message: {other:?}"),
    }
}

fn command(message: &[u8]) -> Result<Command<'_>, BadCommand> {
    decode_command(&Profile::open_1(), body_of(message, Direction::Commands))
}

fn reply(message: &[u8]) -> Option<Reply<'_>> {
    decode_reply(&Profile::open_1(), body_of(message, Direction::Replies)).ok()
}

#[test]
fn vector_no_op() {
    let bytes = hex("0c000000 07000000 01000000 00000000");
    assert_eq!(encoded(|profile, out| wire::command_no_op(profile, out, 7)), bytes);
    assert_eq!(command(&bytes), Ok(Command::NoOp { tag: 7 }));
}

#[test]
fn vector_no_op_reply() {
    let bytes = hex("10000000 07000000 01000000 00000000 00000000");
    assert_eq!(encoded(|profile, out| wire::reply_no_op(profile, out, 7)), bytes);
    assert_eq!(reply(&bytes), Some(Reply { tag: 7, body: ReplyBody::NoOp }));
}

#[test]
fn vector_see_job() {
    let bytes = hex("1c000000 01000000 02000000 00000000 00000000 05000000 68656c6c6f000000");
    assert_eq!(encoded(|profile, out| wire::command_see_job(profile, out, 1, 0, b"hello")), bytes);
    assert_eq!(command(&bytes), Ok(Command::SeeJob { tag: 1, world: 0, job: JobBytes(b"hello") }));
}

#[test]
fn vector_see_job_reply() {
    let bytes = hex("1c000000 01000000 02000000 00000000 00000000 05000000 68656c6c6f000000");
    assert_eq!(encoded(|profile, out| wire::reply_job(profile, out, 1, b"hello")), bytes);
    assert_eq!(reply(&bytes), Some(Reply { tag: 1, body: ReplyBody::Job(JobBytes(b"hello")) }));
}

#[test]
fn vector_error_return() {
    let bytes = hex("24000000 09000000 00000000 04000000 01000000 0d000000 6e6f2073756368 20776f726c64 000000");
    let status = Profile::open_1().statuses.unknown_id;
    assert_eq!(encoded(|profile, out| wire::reply_error(profile, out, 9, status, Some("no such world"))), bytes);
    assert_eq!(reply(&bytes), Some(Reply { tag: 9, body: ReplyBody::Error { status, info: Some("no such world") } }));
}

#[test]
fn commands_that_do_not_parse_keep_their_tag() {
    let cases = [
        (
            "non-zero padding",
            "1c000000 05000000 02000000 00000000 00000000 05000000 68656c6c6f000100",
            Fault::Malformed,
        ),
        (
            "block longer than the body",
            "1c000000 05000000 02000000 00000000 00000000 09000000 68656c6c6f000000",
            Fault::Malformed,
        ),
        ("block of 4 GiB", "1c000000 05000000 02000000 00000000 00000000 ffffffff 68656c6c6f000000", Fault::Malformed),
        ("padding cut off", "19000000 05000000 02000000 00000000 00000000 05000000 68656c6c6f", Fault::Malformed),
        (
            "bytes left over",
            "20000000 05000000 02000000 00000000 00000000 05000000 68656c6c6f000000 00000000",
            Fault::Malformed,
        ),
        ("no arguments", "0c000000 05000000 02000000 00000000", Fault::Malformed),
        ("a NoOp with arguments", "10000000 05000000 01000000 00000000 00000000", Fault::Malformed),
        ("a length that is no multiple of 4", "0d000000 05000000 01000000 00000000 00", Fault::Malformed),
        ("a name that is not UTF-8", "14000000 05000000 03000000 00000000 01000000 ff000000", Fault::Malformed),
        ("an unknown cmd", "0c000000 05000000 63000000 00000000", Fault::UnknownCommand),
        ("an unknown cmd, flags set", "0c000000 05000000 63000000 01000000", Fault::UnknownCommand),
        ("ErrorReturn as a command", "0c000000 05000000 00000000 00000000", Fault::UnknownCommand),
        ("flags set", "0c000000 05000000 01000000 00000080", Fault::FlagsSet),
    ];
    for (what, bytes, fault) in cases {
        assert_eq!(command(&hex(bytes)), Err(BadCommand { tag: 5, fault }), "{what}");
    }
}

#[test]
fn replies_that_do_not_parse() {
    let cases = [
        ("ErrorReturn with status OK", "10000000 05000000 00000000 00000000 00000000"),
        ("a NoOp reply with an error's status", "10000000 05000000 01000000 04000000 00000000"),
        ("an unknown flag", "10000000 05000000 01000000 00000000 02000000"),
        ("an unknown cmd", "10000000 05000000 63000000 00000000 00000000"),
        ("an errorinfo that is missing", "10000000 05000000 00000000 04000000 01000000"),
        ("an errorinfo that is not UTF-8", "18000000 05000000 00000000 04000000 01000000 01000000 ff000000"),
        ("bytes left over", "14000000 05000000 01000000 00000000 00000000 00000000"),
        ("non-zero padding", "18000000 05000000 02000000 00000000 00000000 01000000 61010000"),
        ("a job's reply without its block", "10000000 05000000 02000000 00000000 00000000"),
    ];
    for (what, bytes) in cases {
        assert_eq!(reply(&hex(bytes)), None, "{what}");
    }
}

#[test]
fn what_is_printed_shows_no_job() {
    let bytes = encoded(|profile, out| wire::command_see_job(profile, out, 1, 0, b"PIN=1234"));
    let shown = format!("{:?}", command(&bytes));
    assert!(shown.contains("8 bytes") && !shown.contains("80, 73"), "{shown}");
}

/// The frames of a stream, whatever pieces it arrives in.
fn frames(stream: &[u8], pieces: &[usize], direction: Direction, limits: Limits) -> (Vec<String>, bool) {
    let mut framer = Framer::new(direction, limits);
    let mut held = WipedBuffer::new();
    let mut found = Vec::new();
    let mut rest = stream;
    let mut sizes = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = later;
        held.extend(piece);
        loop {
            let mut input = held.filled();
            let before = input.len();
            let step = framer.next(&mut input).map(|frame| frame.map(|frame| format!("{frame:?}")));
            let eaten = before - input.len();
            held.consume(eaten);
            match step {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
        assert!(framer.missing(held.filled()) <= limits.max_message() as usize + 4);
    }
    (found, true)
}

proptest! {
    #[test]
    fn any_job_comes_back_as_it_was(tag: u32, world: u32, job in prop::collection::vec(any::<u8>(), 0..5000)) {
        let bytes = encoded(|profile, out| wire::command_see_job(profile, out, tag, world, &job));
        prop_assert_eq!(bytes.len(), wire::see_job_message_len(job.len()));
        prop_assert_eq!(bytes.len() % 4, 0);
        prop_assert_eq!(command(&bytes), Ok(Command::SeeJob { tag, world, job: JobBytes(&job) }));
        let bytes = encoded(|profile, out| wire::reply_job(profile, out, tag, &job));
        prop_assert_eq!(reply(&bytes), Some(Reply { tag, body: ReplyBody::Job(JobBytes(&job)) }));
    }

    #[test]
    fn any_name_object_and_error_comes_back_as_it_was(tag: u32, name in ".{0,200}", number in 1_u32.., with_info: bool) {
        let bytes = encoded(|profile, out| wire::command_get_published_object(profile, out, tag, &name));
        prop_assert_eq!(command(&bytes), Ok(Command::GetPublishedObject { tag, name: &name }));
        let bytes = encoded(|profile, out| wire::reply_object(profile, out, tag, number));
        prop_assert_eq!(reply(&bytes), Some(Reply { tag, body: ReplyBody::Object(number) }));
        let info = with_info.then_some(name.as_str());
        let bytes = encoded(|profile, out| wire::reply_error(profile, out, tag, number, info));
        prop_assert_eq!(reply(&bytes), Some(Reply { tag, body: ReplyBody::Error { status: number, info } }));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let profile = Profile::open_1();
        let _ = decode_command(&profile, &body);
        let _ = decode_reply(&profile, &body);
    }

    /// Bytes that are nearly right get deeper into the decoders than random ones.
    #[test]
    fn no_damage_makes_the_decoders_panic_or_grow_a_job(
        job in prop::collection::vec(any::<u8>(), 0..64), at in 4_usize..80, bit in 0_u8..8, cut in 0_usize..80,
    ) {
        let profile = Profile::open_1();
        let mut bytes = encoded(|profile, out| wire::command_see_job(profile, out, 3, 4, &job));
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let body = &bytes[4.min(bytes.len())..bytes.len() - cut % (bytes.len() - 4)];
        if let Ok(Command::SeeJob { job, .. }) = decode_command(&profile, body) {
            prop_assert!(job.0.len() <= body.len());
        }
        let _ = decode_reply(&profile, body);
    }

    #[test]
    fn no_stream_makes_the_framer_panic_and_pieces_do_not_matter(
        lengths in prop::collection::vec(0_u32..400, 1..8), pieces in prop::collection::vec(1_usize..64, 1..5),
        junk in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        let limits = Limits { max_job_bytes: 100 };
        let mut stream = Vec::new();
        for length in &lengths {
            stream.extend(length.to_le_bytes());
            stream.extend((0..*length).map(|index| index.to_le_bytes()[0]));
        }
        stream.extend(junk);
        let whole = frames(&stream, &[stream.len()], Direction::Commands, limits);
        prop_assert_eq!(frames(&stream, &pieces, Direction::Commands, limits), whole);
    }
}
