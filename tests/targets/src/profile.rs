//! A site's own numbers for the wire: whatever a file says, either it is refused, or messages written by it are read by it.

use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{self, Command, JobBytes, OPEN_1, Profile, Reply, ReplyBody, decode_command, decode_reply};

use crate::seeds::{Seeds, seed};

/// Reads a profile, and uses it where it is one.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let profile = match Profile::from_toml(text) {
        Ok(profile) => profile,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut out = WipedBuffer::new();
    wire::command_see_job(&profile, &mut out, 1, 2, b"job");
    let job = Command::SeeJob { tag: 1, world: 2, job: JobBytes(b"job") };
    assert_eq!(decode_command(&profile, &out.filled()[4..]), Ok(job));
    out.clear();
    wire::command_no_op(&profile, &mut out, 3);
    assert_eq!(decode_command(&profile, &out.filled()[4..]), Ok(Command::NoOp { tag: 3 }));
    out.clear();
    wire::command_get_published_object(&profile, &mut out, 4, "world");
    let ask = Command::GetPublishedObject { tag: 4, name: "world" };
    assert_eq!(decode_command(&profile, &out.filled()[4..]), Ok(ask));
    let reads = |out: &WipedBuffer, body: ReplyBody<'_>| {
        assert_eq!(decode_reply(&profile, &out.filled()[4..]), Ok(Reply { tag: 5, body }));
    };
    out.clear();
    wire::reply_job(&profile, &mut out, 5, b"reply");
    reads(&out, ReplyBody::Job(JobBytes(b"reply")));
    out.clear();
    wire::reply_object(&profile, &mut out, 5, 9);
    reads(&out, ReplyBody::Object(9));
    let status = profile.statuses.unknown_id;
    for info in [None, Some("no such world")] {
        out.clear();
        wire::reply_error(&profile, &mut out, 5, status, info);
        reads(&out, ReplyBody::Error { status, info });
    }
    assert_eq!(profile.statuses.name(status), Some("UnknownID"));
}

/// The profile that comes along, whole and changed.
pub fn seeds() -> Seeds {
    vec![
        seed("open-1", OPEN_1),
        seed("other-numbers", OPEN_1.replace("SEEJob             = 2", "SEEJob = 99").replace("open-1", "site")),
        seed("ambiguous", OPEN_1.replace("SEEJob             = 2", "SEEJob = 1")),
        seed("flag-of-two-bits", OPEN_1.replace("errorinfo = 0x1", "errorinfo = 0x3")),
        seed("largest-number", OPEN_1.replace("Timeout          = 11", "Timeout = 4294967295")),
        seed("number-too-large", OPEN_1.replace("Timeout          = 11", "Timeout = 4294967296")),
        seed("missing", OPEN_1.replace("Malformed        = 2", "")),
        seed("unknown-key", format!("{OPEN_1}\nother = 1\n")),
    ]
}
