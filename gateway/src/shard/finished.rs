//! An outcome that outlives the call in which it was told, for gRPC callers.

use std::sync::Arc;

use seeway_proto::grpc::Reply;
use seeway_proto::outcome::{GrpcCode, Outcome};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::Profile;

/// How the job of a unary gRPC call ended.
#[derive(Debug)]
pub enum Finished {
    /// It ran. This is the call's answer, as it is sent: a message with its head.
    Replied(WipedBuffer),
    /// It did not run, or nobody knows.
    Failed(Failure),
}

/// Why a job has no reply.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The gRPC code.
    pub code: GrpcCode,
    /// For programs.
    pub reason: &'static str,
    /// For people: the world, the machine where known, what happened and what to do.
    pub message: String,
    /// The machine's own status, or 0.
    pub status: u32,
    /// Where false it is certain that the job did not run.
    pub may_have_run: bool,
    /// The world that the job was for, as the caller named it.
    pub world: String,
    /// The machine that it was last sent to, if it was.
    pub machine: Option<Arc<str>>,
}

/// What of a machine's errorinfo and of a world's name goes into a failure. gRPC carries failures in HTTP headers, and
/// clients make another failure of headers that are larger than 8 or 16 kB: one that says something else.
const MAX_INFO_BYTES: usize = 512;
const MAX_WORLD_BYTES: usize = 256;

/// The beginning of a text, at most `bytes` long.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

impl Finished {
    /// Keeps what the scheduler told.
    pub fn replied(reply: &Reply<'_>) -> Self {
        let mut message = WipedBuffer::new();
        reply.write(&mut message);
        Self::Replied(message)
    }
}

impl Failure {
    /// A failure, with a sentence that names world and machine.
    pub fn new(profile: &Profile, world: &str, machine: Option<&Arc<str>>, outcome: Outcome<'_>) -> Self {
        let world = cut(world, MAX_WORLD_BYTES);
        let place = match machine {
            Some(machine) => format!("world `{world}`, machine `{machine}`"),
            None => format!("world `{world}`"),
        };
        let (status, detail) = match outcome {
            Outcome::MachineStatus { status, info, .. } => {
                let name = profile.statuses.name(status).unwrap_or("its own");
                let info = cut(info.unwrap_or_default(), MAX_INFO_BYTES);
                (status, format!(": {status:#x} ({name}){}{info}", if info.is_empty() { "" } else { ": " }))
            }
            _ => (0, String::new()),
        };
        Self {
            code: outcome.grpc_code(),
            reason: outcome.reason(),
            message: format!("{place}: {}{detail}", outcome.message()),
            status,
            may_have_run: outcome.may_have_run(),
            world: world.to_owned(),
            machine: machine.cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_fits_into_http_headers_whatever_the_machine_or_the_caller_say() {
        let long = "é".repeat(100_000);
        let outcome = Outcome::MachineStatus { status: 0x0001_0001, info: Some(&long), may_have_run: true };
        let failure = Failure::new(&Profile::open_1(), &long, None, outcome);
        assert!(failure.message.len() + failure.world.len() < 2048, "{}", failure.message.len());
        assert!(failure.message.contains("0x10001") && failure.message.ends_with('é'));
    }
}
