//! The wire's framing and decoders, in both roles: what a client sends, and what a machine sends.
//!
//! Pieces do not matter; nothing decodes to more than it was; what decodes is written as it was read; what a peer is answered is
//! always whole messages.

use seeway_proto::mux::{Incoming, Outgoing, UnknownCommands};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{
    self, Command, Direction, Frame, FrameError, Framer, JobBytes, Limits, OpaqueReply, Profile, Reply, ReplyBody,
    decode_command, decode_reply,
};

use crate::seeds::{Seeds, seed};
use crate::{Script, mux};

/// The first three bytes say which way the stream goes, how large jobs may be and in which pieces the rest comes.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let direction = if script.flag() { Direction::Replies } else { Direction::Commands };
    let limits = Limits { max_job_bytes: [0, 7, 100, 262_100][script.below(4)] };
    let piece = script.below(255) + 1;
    let stream = script.rest();
    let whole = frames(stream, stream.len().max(1), direction, limits);
    assert_eq!(frames(stream, piece, direction, limits), whole, "pieces of {piece} bytes make a difference");
    for body in whole.0.iter().filter_map(|found| found.as_ref().ok()) {
        decode(direction, body);
    }
    match direction {
        Direction::Commands => take_commands(stream, limits),
        Direction::Replies => take_replies(stream, limits),
    }
}

/// The bodies of a stream's messages, or the tags and lengths of those that were too long; and how the stream ends.
type Frames = (Vec<Result<Vec<u8>, (u32, u32)>>, Result<usize, FrameError>);

fn frames(stream: &[u8], piece: usize, direction: Direction, limits: Limits) -> Frames {
    let mut framer = Framer::new(direction, limits);
    let (mut held, mut found) = (Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        held.extend(piece);
        let mut input = &held[..];
        loop {
            match framer.next(&mut input) {
                Ok(Some(Frame::Body(body))) => found.push(Ok(body.to_vec())),
                Ok(Some(Frame::TooLong { tag, length })) => found.push(Err((tag, length))),
                Ok(None) => break,
                Err(error) => return (found, Err(error)),
            }
        }
        let missing = framer.missing(input);
        assert!((1..=limits.max_message() as usize).contains(&missing), "{missing} bytes are asked for");
        assert!(input.len() < limits.max_message() as usize + 4, "a whole message stays with the caller");
        held = input.to_vec();
    }
    (found, Ok(held.len()))
}

/// A body that a framer found.
fn decode(direction: Direction, body: &[u8]) {
    let profile = Profile::open_1();
    match direction {
        Direction::Commands => match decode_command(&profile, body) {
            Ok(command) => {
                let written = written(&profile, command);
                assert_eq!(written[4..], *body, "{command:?} is written otherwise than it was read");
            }
            Err(bad) => assert_eq!(bad.tag.to_le_bytes(), body[..4], "the tag of what does not parse"),
        },
        Direction::Replies => {
            let opaque = OpaqueReply::new(body);
            assert!(opaque.words().count() <= body.len() / 4);
            if let Ok(reply) = decode_reply(&profile, body) {
                assert_eq!(reply.tag, opaque.tag);
                let written = answered(&profile, reply);
                assert_eq!(
                    decode_reply(&profile, &written[4..]),
                    Ok(reply),
                    "it is written otherwise than it was read"
                );
            }
        }
    }
}

fn written(profile: &Profile, command: Command<'_>) -> Vec<u8> {
    let mut out = WipedBuffer::new();
    match command {
        Command::NoOp { tag } => wire::command_no_op(profile, &mut out, tag),
        Command::SeeJob { tag, world, job } => wire::command_see_job(profile, &mut out, tag, world, job.0),
        Command::GetPublishedObject { tag, name } => {
            wire::command_get_published_object(profile, &mut out, tag, name);
        }
    }
    out.filled().to_vec()
}

fn answered(profile: &Profile, Reply { tag, body }: Reply<'_>) -> Vec<u8> {
    let mut out = WipedBuffer::new();
    match body {
        ReplyBody::NoOp => wire::reply_no_op(profile, &mut out, tag),
        ReplyBody::Job(JobBytes(bytes)) => wire::reply_job(profile, &mut out, tag, bytes),
        ReplyBody::Object(object) => wire::reply_object(profile, &mut out, tag, object),
        ReplyBody::Error { status, info } => wire::reply_error(profile, &mut out, tag, status, info),
    }
    out.filled().to_vec()
}

/// The answering end: every command is answered once, by us or by it.
fn take_commands(stream: &[u8], limits: Limits) {
    let profile = Profile::open_1();
    for unknown in [UnknownCommands::Refused, UnknownCommands::Taken] {
        let mut end = Incoming::new(profile.clone(), limits, 3);
        let (mut input, mut tags) = (stream, Vec::new());
        let mut count = 0;
        loop {
            match end.next_received(&mut input, unknown) {
                Ok(Some(received)) => {
                    assert!(!tags.contains(&received.tag), "a tag that is in use is given out");
                    assert_eq!(received.message[4..8], received.tag.to_le_bytes());
                    tags.push(received.tag);
                    count += 1;
                }
                Ok(None) if !end.has_room() => end.answer_no_op(tags.pop().expect("three are outstanding")),
                Ok(None) | Err(_) => break,
            }
            assert!(end.outstanding() <= 3 && end.outstanding() == tags.len());
        }
        for tag in tags {
            end.answer_job(tag, b"reply");
        }
        assert_eq!(end.outstanding(), 0);
        let refused = usize::try_from(end.take_refused()).expect("few");
        assert_eq!(mux::replies(end.output(), Limits::default()).len(), count + refused, "one answer for each command");
    }
}

/// The asking end: no reply is taken for the answer to what was not asked, or answered already.
fn take_replies(stream: &[u8], limits: Limits) {
    let mut end = Outgoing::new(Profile::open_1(), limits, 8);
    for token in 0..3_u8 {
        end.stage_job(0, &[token], token).expect("room");
        end.stage_no_op(token + 3).expect("room");
    }
    end.stage_get_published_object("world", 6).expect("room");
    end.take_output();
    let mut open: Vec<u8> = (0..7).collect();
    let mut input = stream;
    while let Ok(Some(answer)) = end.receive(&mut input) {
        let place = open.iter().position(|token| *token == answer.token).expect("it is answered once");
        open.swap_remove(place);
        let is_right = match answer.reply {
            ReplyBody::Job(bytes) => answer.token < 3 && bytes.0.len() <= limits.max_job_bytes as usize,
            ReplyBody::NoOp => (3..6).contains(&answer.token),
            ReplyBody::Object(_) => answer.token == 6,
            ReplyBody::Error { .. } => true,
        };
        assert!(is_right, "{answer:?}");
        assert_eq!(end.in_flight(), open.len());
    }
}

/// Real messages in both directions, whole, cut, and of sizes around the limits.
pub fn seeds() -> Seeds {
    let profile = Profile::open_1();
    let stream = |head: [u8; 3], messages: &[&dyn Fn(&mut WipedBuffer)]| {
        let mut out = WipedBuffer::new();
        for write in messages {
            write(&mut out);
        }
        [&head[..], out.filled()].concat()
    };
    let status = profile.statuses.unknown_id;
    let commands = stream(
        [0, 2, 254],
        &[
            &|out| wire::command_no_op(&profile, out, 7),
            &|out| wire::command_see_job(&profile, out, 1, 0, b"hello"),
            &|out| wire::command_see_job(&profile, out, 2, 9, &[0xa5; 100]),
            &|out| wire::command_get_published_object(&profile, out, 3, "signer"),
            &|out| wire::command_see_job(&profile, out, 1, 0, b"tag in use"),
        ],
    );
    // The tags that `take_replies` has outstanding.
    let replies = stream(
        [1, 2, 254],
        &[
            &|out| wire::reply_job(&profile, out, 0, b"hello"),
            &|out| wire::reply_no_op(&profile, out, 1),
            &|out| wire::reply_error(&profile, out, 2, status, Some("no such world")),
            &|out| wire::reply_error(&profile, out, 3, status, None),
            &|out| wire::reply_object(&profile, out, 6, 0x5ee0_0001),
        ],
    );
    let long = |head: [u8; 3], length: usize| {
        let mut bytes = stream(head, &[&|out| wire::command_see_job(&profile, out, 4, 0, &vec![1; length])]);
        bytes.extend(stream([0; 3], &[&|out| wire::command_no_op(&profile, out, 5)]).split_off(3));
        bytes
    };
    let mut unknown = vec![0, 2, 0];
    unknown.extend([20, 2, 4711, 0, 0x0102_0304, 5_u32].map(u32::to_le_bytes).concat());
    vec![
        seed("commands", &commands),
        seed("commands-byte-by-byte", [&[0, 2, 0], &commands[3..]].concat()),
        seed("commands-cut", &commands[..commands.len() - 5]),
        seed("job-at-the-limit", long([0, 2, 9], 100)),
        seed("job-past-the-limit", long([0, 2, 9], 101)),
        seed("job-to-be-skipped", long([0, 1, 63], 400)),
        seed("unknown-command", unknown),
        seed("replies", &replies),
        seed("replies-byte-by-byte", [&[1, 2, 0], &replies[3..]].concat()),
        seed("replies-with-no-room", [&[1, 0, 30], &replies[3..]].concat()),
        seed("replies-cut", &replies[..replies.len() - 3]),
        seed("length-of-4-gib", [&[0, 3, 9][..], &[0xff; 8]].concat()),
    ]
}
