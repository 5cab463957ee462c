//! Both ends of a stream by sequences of operations, against a model of what was asked: each command is answered once and with its
//! own answer, or comes back unsent; nothing that was withdrawn leaves.

use std::collections::VecDeque;

use seeway_proto::mux::{Incoming, Outgoing, Tag};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{self, Command, Direction, Frame, Framer, Limits, Profile, ReplyBody, decode_reply};

use crate::Script;
use crate::seeds::{Seeds, scripts, seed};

const LIMITS: Limits = Limits { max_job_bytes: 100 };

/// Operations at most.
const MOST_STEPS: usize = 2000;

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not left.
    Staged,
    /// It has left, and its answer has not come.
    Sent,
    /// Its answer has come, or it came back, or it was withdrawn.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Job,
    NoOp,
    Object,
}

/// A command as the model knows it; its place in the list is its token.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tag: Tag,
    kind: Kind,
    size: usize,
    stage: Stage,
    is_wanted: bool,
}

struct Model {
    asking: Outgoing<usize>,
    answering: Incoming,
    asked: Vec<Asked>,
    /// On the way to the answering end, and back.
    there: VecDeque<u8>,
    back: VecDeque<u8>,
    /// Taken and not answered: the tag on the wire, and the token that its content tells.
    taken: Vec<(u32, Kind, usize)>,
}

/// The first byte says how much room the ends have; each operation is a byte and what it takes.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let room = script.below(20) + 1;
    let mut model = Model {
        asking: Outgoing::new(Profile::open_1(), LIMITS, room),
        answering: Incoming::new(Profile::open_1(), LIMITS, script.below(20) + 1),
        asked: Vec::new(),
        there: VecDeque::new(),
        back: VecDeque::new(),
        taken: Vec::new(),
    };
    for _ in 0..MOST_STEPS {
        let Some(step) = script.byte() else { break };
        match step % 12 {
            0..=2 => model.stage(&mut script),
            3 => model.send(),
            4 => model.take(script.below(8)),
            5 | 6 => model.answer(&mut script),
            7 => model.deliver(script.below(256)),
            8 => model.abandon(script.below(256)),
            9 => model.withdraw(script.below(256)),
            10 => model.withdraw_all(),
            // The rest of the script is what a hostile end says.
            _ => return model.garbage(script.rest()),
        }
        model.check(room);
    }
    model.finish();
}

impl Model {
    fn stage(&mut self, script: &mut Script<'_>) {
        let token = self.asked.len();
        let had_room = self.asking.has_room();
        let kind = [Kind::Job, Kind::Job, Kind::NoOp, Kind::Object][script.below(4)];
        // One more than the limit: the answering end refuses it.
        let size = script.below(98) + 4;
        let staged = match kind {
            Kind::Job => self.asking.stage_job(0, &content(token, size), token),
            Kind::NoOp => self.asking.stage_no_op(token),
            Kind::Object => self.asking.stage_get_published_object(&token.to_string(), token),
        };
        assert_eq!(staged.is_ok(), had_room);
        if let Ok(tag) = staged {
            let is_open = |asked: &Asked| asked.stage != Stage::Ended && asked.tag == tag;
            assert!(!self.asked.iter().any(is_open), "a tag in use is given out again");
            self.asked.push(Asked { tag, kind, size, stage: Stage::Staged, is_wanted: true });
        }
    }

    fn send(&mut self) {
        let staged = self.asked.iter().filter(|asked| asked.stage == Stage::Staged).count();
        let batch = self.asking.take_output();
        assert_eq!(batch.is_some(), staged > 0);
        let Some(batch) = batch else { return };
        let mut framer = Framer::new(Direction::Commands, Limits::default());
        let (mut input, mut count) = (&batch[..], 0);
        while let Ok(Some(Frame::Body(_))) = framer.next(&mut input) {
            count += 1;
        }
        assert_eq!((count, input.len()), (staged, 0), "what is staged leaves, and nothing else");
        self.there.extend(&batch[..]);
        for asked in self.asked.iter_mut().filter(|asked| asked.stage == Stage::Staged) {
            asked.stage = Stage::Sent;
        }
    }

    /// The answering end takes up to so many commands.
    fn take(&mut self, count: usize) {
        let bytes: Vec<u8> = self.there.iter().copied().collect();
        let mut input = &bytes[..];
        for _ in 0..count {
            let Some(command) = self.answering.next(&mut input).expect("our own messages") else { break };
            let (tag, kind, token) = match command {
                Command::NoOp { tag } => (tag, Kind::NoOp, None),
                Command::SeeJob { tag, job, .. } => {
                    let token = token_of(job.0);
                    assert_eq!(job.0, content(token, self.asked[token].size), "a job arrives as it was");
                    (tag, Kind::Job, Some(token))
                }
                Command::GetPublishedObject { tag, name } => (tag, Kind::Object, name.parse().ok()),
            };
            let by_tag = self.asked.iter().position(|asked| asked.stage == Stage::Sent && asked.tag.number() == tag);
            let by_tag = by_tag.expect("what arrives was sent");
            assert!(token.is_none_or(|token| token == by_tag));
            self.taken.push((tag, kind, by_tag));
        }
        self.there.drain(..bytes.len() - input.len());
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        if self.taken.is_empty() {
            return;
        }
        let place = script.below(256) % self.taken.len();
        let (tag, kind, token) = self.taken.swap_remove(place);
        match (kind, script.below(6)) {
            (_, 0) => self.answering.answer_error(tag, 7, Some("no")),
            (Kind::Job, 1) => self.answering.answer_job(tag, &[9; 101]),
            (Kind::Job, _) => self.answering.answer_job(tag, &content(token, 4 + token % 97)),
            (Kind::NoOp, _) => self.answering.answer_no_op(tag),
            (Kind::Object, _) => self.answering.answer_object(tag, u32::try_from(token).expect("few")),
        }
    }

    /// So many of the bytes that were answered arrive.
    fn deliver(&mut self, count: usize) {
        let mut output = WipedBuffer::new();
        self.answering.swap_output(&mut output);
        self.back.extend(output.filled());
        let bytes: Vec<u8> = self.back.iter().copied().take(count).collect();
        let mut input = &bytes[..];
        while let Some(answer) = self.asking.receive(&mut input).expect("our own replies") {
            let token = answer.token;
            let asked = &mut self.asked[token];
            assert!(asked.is_wanted && asked.stage == Stage::Sent, "{token} is answered: {asked:?}");
            asked.stage = Stage::Ended;
            let is_right = match answer.reply {
                ReplyBody::Job(bytes) => asked.kind == Kind::Job && bytes.0 == content(token, 4 + token % 97),
                ReplyBody::NoOp => asked.kind == Kind::NoOp,
                ReplyBody::Object(object) => asked.kind == Kind::Object && object as usize == token,
                ReplyBody::Error { .. } => true,
            };
            assert!(is_right, "{token} has another one's answer");
        }
        let eaten = bytes.len() - input.len();
        // Those that nobody waits for any more end unseen; the stream says which.
        for tag in replies(&bytes[..eaten], Limits::default()) {
            let late = |asked: &&mut Asked| asked.stage == Stage::Sent && asked.tag.number() == tag && !asked.is_wanted;
            if let Some(asked) = self.asked.iter_mut().find(late) {
                asked.stage = Stage::Ended;
            }
        }
        self.back.drain(..eaten);
    }

    fn abandon(&mut self, choice: usize) {
        let Some(token) = self.open(choice) else { return };
        let asked = &mut self.asked[token];
        let expected = asked.is_wanted.then_some(token);
        asked.is_wanted = false;
        assert_eq!(self.asking.abandon(asked.tag), expected);
    }

    fn withdraw(&mut self, choice: usize) {
        let Some(token) = self.open(choice) else { return };
        let Asked { tag, stage, is_wanted, .. } = self.asked[token];
        assert_eq!(self.asking.is_staged(tag), stage == Stage::Staged);
        let expected = (stage == Stage::Staged && is_wanted).then_some(token);
        assert_eq!(self.asking.withdraw(tag), expected);
        if stage == Stage::Staged {
            self.asked[token].stage = Stage::Ended;
        }
    }

    fn withdraw_all(&mut self) {
        let mut unsent = Vec::new();
        self.asking.withdraw_all(|token, job| unsent.push((token, job.to_vec())));
        self.came_back(&unsent);
    }

    fn came_back(&mut self, unsent: &[(usize, Vec<u8>)]) {
        let staged = self.asked.iter().enumerate().filter(|(_, asked)| asked.stage == Stage::Staged && asked.is_wanted);
        let expected: Vec<_> = staged
            .map(|(token, asked)| {
                let job = if asked.kind == Kind::Job { content(token, asked.size) } else { Vec::new() };
                (token, job)
            })
            .collect();
        assert_eq!(unsent, expected, "what has not left comes back, in its order");
        for asked in self.asked.iter_mut().filter(|asked| asked.stage == Stage::Staged) {
            asked.stage = Stage::Ended;
        }
    }

    /// A command that has not ended.
    fn open(&self, choice: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.asked.len()).filter(|token| self.asked[*token].stage != Stage::Ended).collect();
        (!open.is_empty()).then(|| open[choice % open.len()])
    }

    fn check(&self, room: usize) {
        let open = self.asked.iter().filter(|asked| asked.stage != Stage::Ended);
        assert_eq!(self.asking.in_flight(), open.clone().count());
        assert!(self.asking.in_flight() <= room);
        let mut wanted: Vec<usize> = self.asking.wanted().copied().collect();
        wanted.sort_unstable();
        let expected: Vec<usize> = (0..self.asked.len())
            .filter(|token| self.asked[*token].stage != Stage::Ended && self.asked[*token].is_wanted)
            .collect();
        assert_eq!(wanted, expected);
        assert_eq!(self.answering.outstanding(), self.taken.len());
        assert_eq!(self.asking.staged_len() > 0, open.clone().any(|asked| asked.stage == Stage::Staged));
    }

    /// Bytes of nobody's come from both sides.
    fn garbage(mut self, bytes: &[u8]) {
        let mut input = bytes;
        while let Ok(Some(answer)) = self.asking.receive(&mut input) {
            let asked = &mut self.asked[answer.token];
            assert!(asked.is_wanted && asked.stage == Stage::Sent, "what was not sent is answered");
            asked.stage = Stage::Ended;
        }
        let mut input = bytes;
        while let Ok(Some(command)) = self.answering.next(&mut input) {
            let tag = command.tag();
            assert!(self.taken.iter().all(|(taken, ..)| *taken != tag), "a tag in use is taken again");
            self.answering.answer_error(tag, 1, None);
        }
        self.answering.swap_output(&mut WipedBuffer::new());
        self.close();
    }

    /// Everything that is left is answered.
    fn finish(mut self) {
        self.send();
        for _ in 0..self.asked.len() + 2 {
            self.take(usize::MAX);
            while let Some((tag, ..)) = self.taken.pop() {
                self.answering.answer_error(tag, 1, None);
            }
            self.deliver(usize::MAX);
            if self.asking.in_flight() == 0 {
                break;
            }
        }
        assert_eq!((self.asking.in_flight(), self.answering.outstanding()), (0, 0));
        assert!(self.asked.iter().all(|asked| asked.stage == Stage::Ended));
        self.close();
    }

    fn close(self) {
        let (mut unsent, mut sent) = (Vec::new(), Vec::new());
        let Self { asking, asked, .. } = self;
        asking.close(|token, _| unsent.push(token), |token| sent.push(token));
        sent.sort_unstable();
        let of = |stage| {
            (0..asked.len()).filter(|token| asked[*token].stage == stage && asked[*token].is_wanted).collect::<Vec<_>>()
        };
        assert_eq!((unsent, sent), (of(Stage::Staged), of(Stage::Sent)), "each comes back once, by where it was");
    }
}

/// A job that tells its token and no other one's.
fn content(token: usize, size: usize) -> Vec<u8> {
    let number = u32::try_from(token).expect("few").to_le_bytes();
    number.iter().copied().cycle().take(size).collect()
}

fn token_of(job: &[u8]) -> usize {
    u32::from_le_bytes(*job.first_chunk().expect("jobs have four bytes at least")) as usize
}

/// The tags of the replies in these bytes, which are nothing but whole replies.
pub(crate) fn replies(bytes: &[u8], limits: Limits) -> Vec<u32> {
    let (mut framer, mut input, mut tags) = (Framer::new(Direction::Replies, limits), bytes, Vec::new());
    while let Some(frame) = framer.next(&mut input).expect("replies of our own") {
        let Frame::Body(body) = frame else { panic!("a reply of our own is too long") };
        tags.push(decode_reply(&Profile::open_1(), body).expect("a reply of our own parses").tag);
    }
    assert!(input.is_empty(), "a reply of our own is cut");
    tags
}

/// Scripts, and streams that end with what a hostile end says.
pub fn seeds() -> Seeds {
    let mut seeds = scripts(8, 300);
    let mut hostile = WipedBuffer::new();
    let profile = Profile::open_1();
    wire::reply_job(&profile, &mut hostile, 0, b"stray");
    wire::reply_job(&profile, &mut hostile, 0, b"twice");
    // Room for 10 and 10; two jobs are staged and sent; the rest is a stray reply.
    let sent = [9, 9, 0, 0, 5, 0, 0, 6, 3, 11];
    seeds.push(seed("stray-replies", [&sent[..], hostile.filled()].concat()));
    seeds.push(seed("withdrawn", [9, 9, 0, 0, 5, 0, 0, 6, 9, 0, 3, 4, 7, 5, 0, 2, 7, 255]));
    seeds.push(seed("abandoned", [9, 9, 0, 0, 5, 3, 8, 0, 4, 7, 5, 0, 2, 7, 255]));
    seeds
}
