//! `SubmitResponse` and `StreamResponse`, written to where they are sent from: with the head that stands before a message.

use std::time::Duration;

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::HEAD;
use crate::wiped::WipedBuffer;

/// A `SubmitResponse`.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    /// The reply's bytes.
    pub bytes: &'a [u8],
    /// The machine's name.
    pub machine: &'a str,
    /// How long the job waited in the gateway.
    pub queue_time: Duration,
    /// From when the job was sent to when its reply had come.
    pub machine_time: Duration,
}

/// Where a message is written to; what has been written to is taken off it.
type Room<'a> = &'a mut [u8];

/// Every field of these messages has a number below 16: its key is one byte.
const KEY: usize = 1;

/// A field of bytes or of another message.
const fn field_len(length: usize) -> usize {
    KEY + encoded_len_varint(length as u64) + length
}

/// As the schema's language has it, an empty field is left out.
const fn unless_empty(length: usize) -> usize {
    if length == 0 { 0 } else { field_len(length) }
}

const fn unless_zero(number: u64) -> usize {
    if number == 0 { 0 } else { KEY + encoded_len_varint(number) }
}

fn duration_len(duration: Duration) -> usize {
    unless_zero(duration.as_secs()) + unless_zero(duration.subsec_nanos().into())
}

fn put_head(into: &mut Room<'_>, length: usize) {
    into.put_u8(0);
    into.put_u32(u32::try_from(length).expect("a reply's length has 32 bits on the wire"));
}

fn put_key(into: &mut Room<'_>, number: u32, length: usize) {
    encode_key(number, WireType::LengthDelimited, into);
    encode_varint(length as u64, into);
}

fn put_unless_empty(into: &mut Room<'_>, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_key(into, number, bytes.len());
        into.put_slice(bytes);
    }
}

fn put_unless_zero(into: &mut Room<'_>, number: u32, value: u64) {
    if value != 0 {
        encode_key(number, WireType::Varint, into);
        encode_varint(value, into);
    }
}

fn put_duration(into: &mut Room<'_>, number: u32, duration: Duration) {
    put_key(into, number, duration_len(duration));
    put_unless_zero(into, 1, duration.as_secs());
    put_unless_zero(into, 2, duration.subsec_nanos().into());
}

impl Reply<'_> {
    fn len(&self) -> usize {
        unless_empty(self.bytes.len())
            + unless_empty(self.machine.len())
            + field_len(duration_len(self.queue_time))
            + field_len(duration_len(self.machine_time))
    }

    fn put(&self, into: &mut Room<'_>) {
        put_unless_empty(into, 1, self.bytes);
        put_unless_empty(into, 2, self.machine.as_bytes());
        put_duration(into, 3, self.queue_time);
        put_duration(into, 4, self.machine_time);
    }

    /// Appends a `SubmitResponse`.
    pub fn write(&self, out: &mut WipedBuffer) {
        let length = self.len();
        write(out, HEAD + length, |into| {
            put_head(into, length);
            self.put(into);
        });
    }

    /// Appends a `StreamResponse` with this reply to the job `id`.
    pub fn write_on_stream(&self, out: &mut WipedBuffer, id: u64) {
        let of_reply = self.len();
        let length = unless_zero(id) + field_len(of_reply);
        write(out, HEAD + length, |into| {
            put_head(into, length);
            put_unless_zero(into, 1, id);
            put_key(into, 2, of_reply);
            self.put(into);
        });
    }
}

/// Appends a message of the generated kind.
pub fn write_message(out: &mut WipedBuffer, message: &impl Message) {
    let length = message.encoded_len();
    write(out, HEAD + length, |into| {
        put_head(into, length);
        message.encode(into).expect("there is room for all of it");
    });
}

fn write(out: &mut WipedBuffer, length: usize, put: impl FnOnce(&mut Room<'_>)) {
    let mut room = &mut out.unfilled(length)[..length];
    put(&mut room);
    debug_assert!(room.is_empty(), "the length was counted wrong");
    out.commit(length);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::grpc::next_message;
    use crate::v1::{JobFailure, StreamResponse, SubmitResponse, stream_response};

    fn generated(reply: &Reply<'_>) -> SubmitResponse {
        SubmitResponse {
            reply: reply.bytes.to_vec().into(),
            machine: reply.machine.to_owned(),
            queue_time: reply.queue_time.try_into().ok(),
            machine_time: reply.machine_time.try_into().ok(),
        }
    }

    proptest! {
        #[test]
        fn it_writes_what_the_generated_types_write(
            id in prop_oneof![Just(0), any::<u64>()],
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            machine in ".{0,140}",
            times in prop::collection::vec((prop_oneof![Just(0), 0..1_u64 << 62], 0..1_000_000_000_u32), 2),
        ) {
            let times: Vec<_> = times.into_iter().map(|(seconds, nanos)| Duration::new(seconds, nanos)).collect();
            let reply = Reply { bytes: &bytes, machine: &machine, queue_time: times[0], machine_time: times[1] };
            let mut out = WipedBuffer::new();
            reply.write(&mut out);
            reply.write_on_stream(&mut out, id);
            let failure = JobFailure { code: 14, reason: "NOT_SENT".to_owned(), ..JobFailure::default() };
            write_message(&mut out, &failure);
            let mut written = out.filled();
            let mut next = || next_message(&mut written, usize::MAX).expect("well formed").expect("whole").to_vec();
            let submitted = generated(&reply);
            prop_assert_eq!(next(), submitted.encode_to_vec());
            let streamed = StreamResponse { id, result: Some(stream_response::Result::Reply(submitted)) };
            prop_assert_eq!(next(), streamed.encode_to_vec());
            prop_assert_eq!(next(), failure.encode_to_vec());
            prop_assert!(written.is_empty());
        }
    }
}
