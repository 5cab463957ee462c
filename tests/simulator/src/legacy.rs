//! A legacy caller's own end: what it asks, rightly and wrongly, and what it makes of the answers.

use seeway_proto::outcome::OutcomeKind;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{self, Frame, ReplyBody, decode_reply, see_job_message_len};

use crate::callers::{FIRST_HANDLE, Legacy};
use crate::ledger::{CallerKey, Number, Stage, job_bytes, reply_to};
use crate::promise::Promise;
use crate::simulation::{Simulation, Task};
use crate::story::Mistake;

/// Something that was asked and not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    NoOp,
    Object(u32),
    Job(Number),
    /// The job's tag may still be taken.
    JobOnTakenTag(Number),
    /// Something wrong that is answered with this status.
    Mistake(u32),
}

impl Question {
    pub(crate) fn number(&self) -> Option<Number> {
        match self {
            Self::Job(number) | Self::JobOnTakenTag(number) => Some(*number),
            _ => None,
        }
    }
}

/// An answer as it came.
enum Answer {
    NoOp,
    Object(u32),
    Job(Vec<u8>),
    Error(u32, String),
}

impl Simulation {
    fn write_to_gateway(&mut self, key: CallerKey, bytes: &[u8]) {
        let (now, latency, pieces) = (self.now, self.setup.latency, self.setup.pieces);
        let mut chance = self.chance(41);
        let Some(legacy) = self.legacy(key) else { return };
        for at in legacy.to_gateway.send(now, bytes, latency, pieces, &mut chance) {
            self.later(at, Task::FromCaller(key));
        }
    }

    pub(crate) fn ask_no_op(&mut self, key: CallerKey) {
        let mut bytes = WipedBuffer::new();
        let profile = self.profile.clone();
        let Some(legacy) = self.legacy(key) else { return };
        let tag = legacy.ask(Question::NoOp);
        wire::command_no_op(&profile, &mut bytes, tag);
        self.write_to_gateway(key, bytes.filled());
    }

    /// Asks for a job, and first for its world where that was not done yet.
    pub(crate) fn ask_job(&mut self, key: CallerKey, number: Number) {
        self.ask_job_with(key, number, None);
    }

    fn ask_job_with(&mut self, key: CallerKey, number: Number, taken_tag: Option<u32>) {
        let mut bytes = WipedBuffer::new();
        let profile = self.profile.clone();
        let (world, size) = (self.ledger.job(number).world, self.ledger.job(number).size);
        let most = self.setup.max_job_bytes;
        let Some(legacy) = self.legacy(key) else { return };
        let place = legacy.asked_for.iter().position(|other| *other == world);
        let place = place.unwrap_or_else(|| {
            let place = legacy.asked_for.len();
            legacy.asked_for.push(world);
            let tag = legacy.ask(Question::Object(FIRST_HANDLE + u32::try_from(place).expect("few")));
            wire::command_get_published_object(&profile, &mut bytes, tag, &format!("world-{world}"));
            place
        });
        let handle = FIRST_HANDLE + u32::try_from(place).expect("few");
        let is_too_large = size > most;
        let question = match taken_tag {
            _ if is_too_large => Question::Mistake(profile.statuses.buffer_full),
            Some(_) => Question::JobOnTakenTag(number),
            None => Question::Job(number),
        };
        let tag = match taken_tag.filter(|_| !is_too_large) {
            Some(tag) => {
                legacy.questions.entry(tag).or_default().push(question);
                tag
            }
            None => legacy.ask(question),
        };
        if Legacy::is_nameless(size) {
            legacy.nameless.push_back(number);
        }
        wire::command_see_job(&profile, &mut bytes, tag, handle, &job_bytes(number, size));
        if is_too_large {
            self.ledger.refused_before(number);
        }
        self.write_to_gateway(key, bytes.filled());
    }

    /// Does something wrong.
    pub(crate) fn blunder(&mut self, key: CallerKey, mistake: Mistake, number: Number) {
        let profile = self.profile.clone();
        let statuses = &profile.statuses;
        let max_message = self.setup.limits().max_message();
        let job = job_bytes(number, self.ledger.job(number).size);
        let Some(legacy) = self.legacy(key) else { return };
        let mut bytes = WipedBuffer::new();
        match mistake {
            Mistake::TagInUse => {
                let taken = legacy.questions.iter().find(|(_, asked)| matches!(asked.first(), Some(Question::Job(_))));
                let taken = taken.map(|(tag, _)| *tag);
                self.ask_job_with(key, number, taken);
                return;
            }
            Mistake::TooLarge => {
                self.ask_job_with(key, number, None);
                return;
            }
            Mistake::UnknownHandle => {
                let tag = legacy.ask(Question::Mistake(statuses.unknown_id));
                wire::command_see_job(&profile, &mut bytes, tag, 7, b"nowhere");
            }
            Mistake::TooLong => {
                let tag = legacy.ask(Question::Mistake(statuses.buffer_full));
                wire::command_see_job(&profile, &mut bytes, tag, 7, &vec![1; max_message as usize]);
            }
            Mistake::UnknownCommand | Mistake::FlagsSet | Mistake::Malformed => {
                let status = match mistake {
                    Mistake::UnknownCommand => statuses.unknown_command,
                    Mistake::FlagsSet => statuses.invalid_parameter,
                    _ => statuses.malformed,
                };
                let tag = legacy.ask(Question::Mistake(status));
                wire::command_see_job(&profile, &mut bytes, tag, FIRST_HANDLE, b"wrong");
                let mut raw = bytes.filled().to_vec();
                match mistake {
                    Mistake::UnknownCommand => raw[8] = 77,
                    Mistake::FlagsSet => raw[12] = 1,
                    // The job's length says more than there is.
                    _ => raw[20] = 200,
                }
                self.ledger.refused_before(number);
                self.write_to_gateway(key, &raw);
                return;
            }
            Mistake::BadLength => bytes.extend(&3_u32.to_le_bytes()),
            Mistake::HalfAMessage => {
                let mut whole = WipedBuffer::new();
                let tag = legacy.ask(Question::Mistake(0));
                wire::command_see_job(&profile, &mut whole, tag, FIRST_HANDLE, &job);
                let mut chance = self.chance(42);
                let cut = chance.count(1, see_job_message_len(job.len()) - 1);
                self.ledger.refused_before(number);
                self.write_to_gateway(key, &whole.filled()[..cut]);
                self.leave(key.slot, "goes away in the middle of a message");
                return;
            }
        }
        self.ledger.refused_before(number);
        self.write_to_gateway(key, bytes.filled());
    }

    /// Answers arrive at their caller.
    pub(crate) fn arrive_at_caller(&mut self, key: CallerKey) {
        let now = self.now;
        let profile = self.profile.clone();
        let Some(legacy) = self.legacy(key) else { return };
        let Some(piece) = legacy.to_caller.arrived(now) else { return };
        legacy.input.extend(piece);
        let received = std::mem::take(&mut legacy.input);
        let mut input = &received[..];
        let mut answers = Vec::new();
        let mut is_followed = true;
        while let Ok(Some(frame)) = legacy.framer.next(&mut input) {
            let reply = match frame {
                Frame::Body(body) => decode_reply(&profile, body).ok(),
                Frame::TooLong { .. } => None,
            };
            let Some(reply) = reply else {
                is_followed = false;
                break;
            };
            let answer = match reply.body {
                ReplyBody::NoOp => Answer::NoOp,
                ReplyBody::Object(handle) => Answer::Object(handle),
                ReplyBody::Job(bytes) => Answer::Job(bytes.0.to_vec()),
                ReplyBody::Error { status, info } => Answer::Error(status, info.unwrap_or_default().to_owned()),
            };
            answers.push((reply.tag, answer));
        }
        legacy.input = input.to_vec();
        if !is_followed {
            self.fail(Promise::Contract, "a legacy caller can not follow its answers");
        }
        for (tag, answer) in answers {
            self.is_answered(key, tag, &answer);
        }
    }

    /// Whether an answer is one to what was asked with its tag.
    fn is_answered(&mut self, key: CallerKey, tag: u32, answer: &Answer) {
        let profile = self.profile.clone();
        let most = self.setup.max_job_bytes;
        let Some(Legacy { questions, .. }) = self.legacy(key) else { return };
        let asked = questions.get(&tag).cloned().unwrap_or_default();
        let is_in_use = matches!(answer, Answer::Error(status, info)
            if *status == profile.statuses.invalid_parameter && info == "tag in use");
        // The one that was refused because of its tag is the first that never got further; any other answer is to the first
        // that did, or to what is no job.
        let place = asked.iter().position(|question| match question {
            Question::JobOnTakenTag(number) => is_in_use == (self.ledger.job(*number).stage == Stage::Asked),
            _ => !is_in_use,
        });
        let Some(place) = place else {
            self.fail(
                Promise::RightReply,
                format!("caller {} is answered with tag {tag:#x} and asked nothing", key.slot),
            );
            return;
        };
        let question = asked[place].clone();
        if let Some(legacy) = self.legacy(key) {
            let asked = legacy.questions.entry(tag).or_default();
            asked.remove(place);
            if asked.is_empty() {
                legacy.questions.remove(&tag);
            }
        }
        if is_in_use && let Some(number) = question.number() {
            // A nameless one will not come out of the stream any more.
            if let Some(legacy) = self.legacy(key) {
                legacy.nameless.retain(|other| *other != number);
            }
            self.ledger.refused_before(number);
            return;
        }
        let is_right = match (&question, answer) {
            (Question::NoOp, Answer::NoOp) => true,
            (Question::Object(handle), Answer::Object(answer)) => handle == answer,
            (Question::Mistake(status), Answer::Error(answer, _)) => status == answer,
            (Question::Job(number) | Question::JobOnTakenTag(number), answer) => {
                let job = self.ledger.job(*number);
                match (job.told, answer) {
                    (Some(OutcomeKind::Replied), Answer::Job(reply)) => {
                        *reply == reply_to(&job_bytes(*number, job.size), most)
                    }
                    (Some(told), Answer::Error(status, _)) => told != OutcomeKind::Replied && *status != 0,
                    _ => false,
                }
            }
            _ => false,
        };
        if !is_right {
            self.fail(Promise::RightReply, format!("caller {}: {question:?} is not answered by what came", key.slot));
        }
    }
}

impl Legacy {
    /// Takes a tag for something that is asked.
    fn ask(&mut self, question: Question) -> u32 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.questions.insert(tag, vec![question]);
        tag
    }
}
