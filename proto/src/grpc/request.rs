//! `SubmitRequest` and `StreamRequest`, read where they stand.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::Duration;

use crate::v1::Priority;

/// A `SubmitRequest`. What is absent has the value that the schema's language gives it.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Submit<'a> {
    /// The world's name.
    pub world: &'a str,
    /// The job's bytes.
    pub job: &'a [u8],
    /// Whether the job may be sent again when its outcome is unknown.
    pub idempotent: bool,
    /// Jobs with the same key go to the same machine.
    pub affinity_key: &'a str,
    /// How the job ranks among its world's; a number that this version does not know counts as normal.
    pub priority: Priority,
}

/// A `StreamRequest`.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Request<'a> {
    /// The caller's name for the job.
    pub id: u64,
    /// The job.
    pub submit: Option<Submit<'a>>,
    /// How long the caller waits.
    pub timeout: Option<Duration>,
}

/// What is no such message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadMessage {
    /// It is no Protobuf message at all.
    #[error("the message does not decode: {0}")]
    NotProtobuf(#[from] DecodeError),
    /// It ends within a field.
    #[error("the message does not decode: it ends within a field")]
    CutShort,
    /// A field is of another kind than the schema says.
    #[error("the message does not decode: field {0} is of another kind")]
    WrongKind(u32),
    /// A text is no UTF-8.
    #[error("the message does not decode: field {0} is no UTF-8")]
    NotText(u32),
}

/// A field as it stands in a message.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that none of these messages have.
    Other,
}

/// The fields of a message, in the order in which they stand there.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, BadMessage> {
        let Self(rest) = self;
        if rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = decode_key(rest)?;
        let value = match kind {
            WireType::Varint => Value::Number(decode_varint(rest)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(rest)?).map_err(|_| BadMessage::CutShort)?;
                let (bytes, after) = rest.split_at_checked(length).ok_or(BadMessage::CutShort)?;
                *rest = after;
                Value::Bytes(bytes)
            }
            _ => {
                skip_field(kind, number, rest, DecodeContext::default())?;
                Value::Other
            }
        };
        Ok(Some((number, value)))
    }
}

impl<'a> Submit<'a> {
    /// Reads a message.
    pub fn decode(message: &'a [u8]) -> Result<Self, BadMessage> {
        let mut submit = Self::default();
        submit.merge(message)?;
        Ok(submit)
    }

    fn merge(&mut self, message: &'a [u8]) -> Result<(), BadMessage> {
        let mut fields = Fields(message);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) => self.world = text(1, bytes)?,
                (2, Value::Bytes(bytes)) => self.job = bytes,
                (3, Value::Number(number)) => self.idempotent = number != 0,
                (4, Value::Bytes(bytes)) => self.affinity_key = text(4, bytes)?,
                (5, Value::Number(number)) => self.priority = Priority::try_from(low_half(number)).unwrap_or_default(),
                (number @ 1..=5, _) => return Err(BadMessage::WrongKind(number)),
                // A later version's.
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Request<'a> {
    /// Reads a message.
    pub fn decode(message: &'a [u8]) -> Result<Self, BadMessage> {
        let mut request = Self::default();
        let mut fields = Fields(message);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(number)) => request.id = number,
                (2, Value::Bytes(bytes)) => request.submit.get_or_insert_default().merge(bytes)?,
                (3, Value::Bytes(bytes)) => merge_duration(request.timeout.get_or_insert_default(), bytes)?,
                (number @ 1..=3, _) => return Err(BadMessage::WrongKind(number)),
                _ => {}
            }
        }
        Ok(request)
    }
}

fn merge_duration(duration: &mut Duration, message: &[u8]) -> Result<(), BadMessage> {
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => duration.seconds = number.cast_signed(),
            (2, Value::Number(number)) => duration.nanos = low_half(number),
            (number @ 1..=2, _) => return Err(BadMessage::WrongKind(number)),
            _ => {}
        }
    }
    Ok(())
}

/// A number of 32 bits is the low half of the one of 64 bits that stands in the message.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is")]
fn low_half(number: u64) -> i32 {
    number as i32
}

fn text(number: u32, bytes: &[u8]) -> Result<&str, BadMessage> {
    std::str::from_utf8(bytes).map_err(|_| BadMessage::NotText(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::v1;

    fn same(mine: &Submit<'_>, generated: &v1::SubmitRequest) {
        assert_eq!(
            (mine.world, mine.job, mine.idempotent, mine.affinity_key, mine.priority),
            (
                &generated.world[..],
                &generated.job[..],
                generated.idempotent,
                &generated.affinity_key[..],
                generated.priority()
            )
        );
    }

    fn submit() -> impl Strategy<Value = v1::SubmitRequest> {
        let bytes = prop::collection::vec(any::<u8>(), 0..300);
        (".{0,9}", bytes, any::<bool>(), ".{0,9}", -1..5).prop_map(
            |(world, job, idempotent, affinity_key, priority)| v1::SubmitRequest {
                world,
                job: job.into(),
                idempotent,
                affinity_key,
                priority,
            },
        )
    }

    fn request() -> impl Strategy<Value = v1::StreamRequest> {
        let timeout = prop::option::of((any::<i64>(), any::<i32>()));
        (any::<u64>(), prop::option::of(submit()), timeout).prop_map(|(id, submit, timeout)| v1::StreamRequest {
            id,
            submit,
            timeout: timeout.map(|(seconds, nanos)| Duration { seconds, nanos }),
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_the_generated_types_write(request in request()) {
            let bytes = request.encode_to_vec();
            let mine = Request::decode(&bytes).expect("it is one");
            prop_assert_eq!((mine.id, mine.timeout), (request.id, request.timeout));
            prop_assert_eq!(mine.submit.is_some(), request.submit.is_some());
            if let (Some(mine), Some(generated)) = (&mine.submit, &request.submit) {
                same(mine, generated);
            }
        }

        #[test]
        fn whatever_comes_it_says_what_the_generated_types_say(
            mut bytes in request().prop_map(|request| request.encode_to_vec()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            more in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            for (place, byte) in changes {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            bytes.extend(more);
            let (mine, generated) = (Request::decode(&bytes), v1::StreamRequest::decode(&bytes[..]));
            match (mine, generated) {
                (Ok(mine), Ok(generated)) => {
                    prop_assert_eq!((mine.id, mine.timeout), (generated.id, generated.timeout));
                    prop_assert_eq!(mine.submit.is_some(), generated.submit.is_some());
                    if let (Some(mine), Some(generated)) = (&mine.submit, &generated.submit) {
                        same(mine, generated);
                    }
                }
                (Err(_), Err(_)) => {}
                (mine, generated) => prop_assert!(false, "{} {generated:?}", mine.is_ok()),
            }
        }
    }

    #[test]
    fn an_error_shows_no_content() {
        let error = Submit::decode(b"\x0a\x06SECRET\x0a\x01\xff").err().expect("no UTF-8");
        assert!(!format!("{error} {error:?}").contains("SECRET"));
        assert_eq!(Submit::decode(b"\x12\x05abc").err(), Some(BadMessage::CutShort));
        assert_eq!(Submit::decode(b"\x10\x05").err(), Some(BadMessage::WrongKind(2)));
    }
}
