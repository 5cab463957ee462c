//! The gateway's own: threads, limits, the audit log, the process.

use super::Kind::{Boolean, Choice, Duration, Integer, List, Shards, Text};
use super::Unset::{Default, Optional};
use super::{Table, key};

/// The largest body that the wire's framing takes (above it a connection is closed), in bytes.
const FRAMING_LIMIT: u64 = 16 * 1024 * 1024;
/// What a reply adds to its job's bytes at most, as the wire counts it, in bytes.
const MESSAGE_OVERHEAD: u64 = 44;

/// `[runtime]`.
pub(super) const RUNTIME: Table = Table {
    name: "runtime",
    many: false,
    doc: "Threads and their end.",
    keys: &[
        key(
            "shards",
            Shards(256),
            Default("auto"),
            "Threads of the data plane, each with tunnels of its own to every machine. `\"auto\"`: 1 up to 4 cores, a quarter \
             of the cores above that.",
        ),
        key(
            "drain_timeout",
            Duration { zero: true },
            Default("30s"),
            "How long the gateway, told to end, waits for jobs that are still out. `\"0s\"` does not wait.",
        ),
        key(
            "handover_timeout",
            Duration { zero: true },
            Default("5m"),
            "How long a gateway that another one has taken over from goes on serving the streams, pipes and connections that can not \
             move; then it drains.",
        ),
    ],
};

/// `[limits]`.
pub(super) const LIMITS: Table = Table {
    name: "limits",
    many: false,
    doc: "How much of everything. What is above a limit is refused, with an outcome that says so.",
    keys: &[
        key(
            "max_job_bytes",
            Integer(1, FRAMING_LIMIT - MESSAGE_OVERHEAD),
            Default("262100"),
            "The largest job and the largest reply, in bytes.",
        ),
        key("queue", Integer(1, 1 << 24), Default("4096"), "Jobs waiting, for each world."),
        key(
            "queue_bytes",
            Integer(1, 1 << 40),
            Default("268435456"),
            "Bytes of the jobs waiting, for each world; room for at least one job of `max_job_bytes`.",
        ),
        key(
            "hold",
            Duration { zero: true },
            Default("35s"),
            "How long jobs wait for a world that has no machine up. `\"0s\"` fails them at once.",
        ),
        key("default_timeout", Duration { zero: false }, Default("60s"), "The deadline of jobs whose caller set none."),
        key("callers", Integer(1, 1 << 20), Default("10000"), "Connections at the front ends, all together."),
        key(
            "peer_callers",
            Integer(0, 1 << 20),
            Default("0"),
            "Those of one IP address (of IPv6: of one /64), or of one Unix user. Below `callers`, so that whoever takes all that it can \
             get leaves some for others. 0: as many as `callers`.",
        ),
        key(
            "caller_jobs",
            Integer(1, 1 << 20),
            Default("1024"),
            "Jobs that one legacy connection or gRPC stream may have outstanding.",
        ),
        key(
            "caller_queued",
            Integer(1, 1 << 20),
            Default("1024"),
            "Jobs of one caller that may wait. A caller is a legacy connection, a gRPC stream, or the unary calls of a gRPC \
             connection. At this limit, and at the next two, connections and streams are not read from, and a unary call gets \
             RESOURCE_EXHAUSTED.",
        ),
        key(
            "caller_in_flight",
            Integer(1, 1 << 20),
            Default("1024"),
            "Jobs of one caller that may be sent and unanswered; its others wait.",
        ),
        key(
            "caller_bytes",
            Integer(1, 1 << 40),
            Default("67108864"),
            "Bytes of one caller's jobs in hand, waiting or sent; room for at least one job of `max_job_bytes`.",
        ),
        key(
            "caller_buffer_bytes",
            Integer(1, 1 << 32),
            Default("4194304"),
            "Replies waiting to be read by one legacy caller, in bytes, past which it is not read from; room for at least one message of `max_job_bytes`. What it has outstanding by then may still be answered, so one caller can occupy this and `caller_jobs` times its largest reply.",
        ),
        key(
            "connection_buffer_bytes",
            Integer(1, 1 << 40),
            Default("33554432"),
            "Unfinished messages of all calls of one gRPC connection together, in bytes; one message of `max_job_bytes` at a time is \
             always taken. A call that would go above it gets RESOURCE_EXHAUSTED.",
        ),
        key(
            "channel_buffer_bytes",
            Integer(1, 1 << 32),
            Default("1048576"),
            "Jobs waiting to be written to one channel, in bytes; room for at least one message of `max_job_bytes`.",
        ),
        key(
            "message_timeout",
            Duration { zero: false },
            Default("30s"),
            "How long a message may take to come, from its first byte to its last, once the gateway has room for it: on a legacy \
             connection, which is closed then, and in a gRPC call, which fails. A gRPC connection is closed that has not said by \
             then that it is one, or that stops within a frame.",
        ),
        key("pipes", Integer(1, 1 << 16), Default("256"), "`Pipe` calls open at once."),
        key(
            "bulk_above",
            Integer(0, FRAMING_LIMIT),
            Default("32768"),
            "Jobs of more bytes than this go over a machine's `bulk_channels`.",
        ),
    ],
};

/// `[audit]`.
pub(super) const AUDIT: Table = Table {
    name: "audit",
    many: false,
    doc: "The audit log: a record of each job's end, of each refusal, and of what operators do; hash-chained, so that a change shows \
          ([what it proves](design/audit.md)).",
    keys: &[
        key(
            "to",
            Text,
            Optional("there is no audit log"),
            "Where records go: `\"file:PATH\"`, `\"journald\"` or `\"syslog\"`; the last two with another socket than the usual one as \
             `\"journald:PATH\"` and `\"syslog:PATH\"`. SIGHUP opens a file anew, so that it can be rotated.",
        ),
        key(
            "when_full",
            Choice(&["stop", "drop"]),
            Default("stop"),
            "What a full disk, or a server that takes no records, means to jobs: `\"stop\"` refuses new ones (not sent, NotAvailable) \
             until records can be written again; `\"drop\"` lets them run, and drops and counts records that `buffer` has no room for.",
        ),
        key(
            "sync",
            Choice(&["batch", "never"]),
            Default("batch"),
            "Whether each batch of records is synced to the disk (`\"batch\"`), so that a power cut costs no more than the last few \
             milliseconds, or that is left to the system (`\"never\"`). No job waits for it.",
        ),
        key(
            "buffer",
            Integer(1, 1 << 24),
            Default("65536"),
            "Records that may wait to be written, of about 200 bytes each. Under `\"stop\"` those of jobs in hand may come on top.",
        ),
        key(
            "job_digest",
            Boolean,
            Default("false"),
            "Whether each record has the SHA-256 of its job. Short or guessable jobs can be found out from it.",
        ),
        key(
            "rotate_bytes",
            Integer(0, 1 << 50),
            Default("0"),
            "A file that has become this large is renamed to `PATH.N`, N being its last record's number, and another one begins. \
             0: only whoever else rotates files does.",
        ),
        key(
            "key",
            Text,
            Optional("hashes are plain SHA-256, which whoever can write the file can make, too"),
            "A file with a secret of at least 16 bytes, for this user only: hashes are HMAC-SHA-256 then, and nobody makes them who \
             does not have it. `openssl rand -hex 32` makes one.",
        ),
    ],
};

/// `[process]`.
pub(super) const PROCESS: Table = Table {
    name: "process",
    many: false,
    doc: "What the gateway's process takes away from itself when it listens. Core files and debuggers are off in any case.",
    keys: &[
        key(
            "sandbox",
            Choice(&["prefer", "require", "off"]),
            Default("prefer"),
            "Takes away files, ports (Landlock) and system calls (seccomp) that a running gateway does not need. `\"prefer\"`: as far \
             as the kernel can, with a warning where it can't. `\"require\"`: else it does not start. `\"off\"`: nothing. New files \
             are read at a reload from the folders of those that it was started with, and from no others.",
        ),
        key(
            "lock_memory",
            Choice(&["prefer", "require", "off"]),
            Default("prefer"),
            "Keeps memory, in which keys and jobs are, out of swap space; needs `LimitMEMLOCK=infinity`. `\"prefer\"`: where there \
             is swap space, with a warning where it can't. `\"require\"`: else it does not start. `\"off\"`: never.",
        ),
        key(
            "user",
            Text,
            Optional("the user that starts it"),
            "The user, by name or number, that the gateway becomes when it listens, with that user's group and no other. It has to be \
             started as root then, and at a reload reads files as this user.",
        ),
        key(
            "connect_ports",
            List,
            Optional("any"),
            "The only TCP ports that the gateway may connect to, besides 53 for names: those of the machines' SSH servers, of \
             `listen.upstream_hardserver`, of `token.jwks` and of `trace.endpoint`. Machines that a reload adds must be at these ports too.",
        ),
    ],
};
