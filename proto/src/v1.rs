//! The gRPC schema `seeway.v1`, compiled from `seeway/v1/see_job_service.proto`.
//!
//! Messages that carry the bytes of jobs, replies or pipes print only how many there are.

#![allow(missing_docs, clippy::pedantic, unused_qualifications)] // Generated code; the schema has the comments.

use std::fmt;

tonic::include_proto!("seeway.v1");

/// The compiled schema, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("seeway.v1");

impl fmt::Debug for SubmitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitRequest")
            .field("world", &self.world)
            .field("job_len", &self.job.len())
            .field("idempotent", &self.idempotent)
            .field("affinity_key", &self.affinity_key)
            .field("priority", &self.priority)
            .finish()
    }
}

impl fmt::Debug for SubmitResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitResponse")
            .field("reply_len", &self.reply.len())
            .field("machine", &self.machine)
            .field("queue_time", &self.queue_time)
            .field("machine_time", &self.machine_time)
            .finish()
    }
}

impl fmt::Debug for PipeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeRequest").field("message", &self.message).finish()
    }
}

impl fmt::Debug for pipe_request::Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(open) => f.debug_tuple("Open").field(open).finish(),
            Self::Data(data) => write!(f, "Data({} bytes)", data.len()),
        }
    }
}

impl fmt::Debug for PipeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeResponse({} bytes)", self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_shows_no_bytes() {
        let secret = || bytes::Bytes::from_static(b"SECRET");
        let request =
            StreamRequest { submit: Some(SubmitRequest { job: secret(), ..Default::default() }), ..Default::default() };
        let reply = SubmitResponse { reply: secret(), ..Default::default() };
        let response = StreamResponse { id: 1, result: Some(stream_response::Result::Reply(reply)) };
        let piped = PipeRequest { message: Some(pipe_request::Message::Data(secret())) };
        let pipe = PipeResponse { data: secret() };
        let shown = format!("{request:?} {response:?} {piped:?} {pipe:?}");
        assert!(!shown.contains("SECRET") && !shown.contains("83, 69"), "{shown}");
    }
}
