//! Every key that `seeway.toml` may hold, in one table.
//!
//! The table is what the reader accepts, refuses and fills in by, what environment variables are looked up in, and what the
//! reference page is written from: a key that is not here does not exist, one that is here is documented.

use Kind::{Boolean, Duration, Integer, List, Shards, Text};
use Unset::{Default, Optional, Required};

/// The largest body that the wire's framing takes (above it a connection is closed), in bytes.
const FRAMING_LIMIT: u64 = 16 * 1024 * 1024;
/// What a reply adds to its job's bytes at most, as the wire counts it, in bytes.
const MESSAGE_OVERHEAD: u64 = 44;

/// One table of the file.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name, as in `[name]` or `[[name]]`.
    pub(super) name: &'static str,
    /// `[[name]]`: it may stand many times.
    pub(super) many: bool,
    /// What it is for, in Markdown.
    pub(super) doc: &'static str,
    /// Its keys, in the reference's order.
    pub(super) keys: &'static [Key],
}

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unset: Unset,
    /// What it means, in Markdown.
    pub(super) doc: &'static str,
}

/// What a key's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// An array of strings.
    List,
    /// A whole number, both ends included.
    Integer(u64, u64),
    /// `true` or `false`.
    Boolean,
    /// A duration as a string; the flag says whether zero means something.
    Duration { zero: bool },
    /// The string `"auto"` or a whole number up to this one.
    Shards(u64),
}

/// What a key that is not in the file counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unset {
    /// A problem.
    Required,
    /// Nothing; the text says what that means.
    Optional(&'static str),
    /// This value, as an environment variable would write it.
    Default(&'static str),
}

const fn key(name: &'static str, kind: Kind, unset: Unset, doc: &'static str) -> Key {
    Key { name, kind, unset, doc }
}

/// The keys of `[tls]` and `[management_tls]`.
const TLS_KEYS: &[Key] = &[
    key(
        "certificate",
        Text,
        Optional("no TLS"),
        "The file of the certificate that is shown, and of those between it and its authority, in PEM form. `seeway keygen DIR --tls` \
         makes all files that are needed for a start.",
    ),
    key(
        "key",
        Text,
        Optional("required with `certificate`"),
        "The file of its private key, in PEM form, not readable by others.",
    ),
    key(
        "client_ca",
        Text,
        Optional("no certificates are asked for"),
        "The file of the authorities whose client certificates count, in PEM form.",
    ),
    key(
        "client_certificates",
        Text,
        Default("required"),
        "With `client_ca`: `\"required\"` lets nobody in without a certificate, `\"optional\"` lets them in as `anonymous`.",
    ),
    key(
        "crl",
        List,
        Default(""),
        "Files with lists of revoked certificates, in PEM form. Where there is one, each authority that a client certificate comes by must \
         have one.",
    ),
    key(
        "expired_crl",
        Text,
        Default("refuse"),
        "What becomes of an authority's certificates when its list is past its next update: `\"refuse\"` or `\"accept\"`.",
    ),
    key("handshake_timeout", Duration { zero: false }, Default("10s"), "How long agreeing on TLS may take."),
    key(
        "handshakes",
        Integer(1, 65_536),
        Default("256"),
        "Connections that may be agreeing on TLS at once; one more is closed at once.",
    ),
    key(
        "max_age",
        Duration { zero: true },
        Default("1h"),
        "How old a gRPC connection may become before its caller is asked to make another one, so that revoked certificates do not stay. \
         `\"0s\"`: any age.",
    ),
];

/// The tables, in the reference's order.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "listen",
        many: false,
        doc: "Where callers and operators come in. Without TLS a TCP address must be a loopback one: what comes in there is neither \
              encrypted nor authenticated.",
        keys: &[
            key(
                "grpc",
                Text,
                Default("127.0.0.1:50051"),
                "Where gRPC callers connect: an IP address (or `localhost`) and a port; an IPv6 address stands in brackets. A loopback \
                 address, unless `[tls]` has a certificate: then callers speak TLS. Port 0 lets the system choose one. `\"\"` switches \
                 the gRPC front end off.",
            ),
            key(
                "hardserver",
                List,
                Default("unix:/run/seeway/nserver,tcp:127.0.0.1:9000"),
                "Where legacy callers connect, as to a hardserver: any number of `unix:/path` (at most 107 bytes, in a directory \
                 that is there), `tcp:host:port` (loopback only) and `tls:host:port` (with what `[tls]` says). `[]` switches the \
                 hardserver front end off.",
            ),
            key(
                "upstream_hardserver",
                Text,
                Optional("commands that Seeway does not serve get UnknownCommand"),
                "The real hardserver, as `unix:/path` or `tcp:host:port` (loopback only). Commands of legacy callers that Seeway does \
                 not serve itself go there unchanged, over one connection for each caller.",
            ),
            key(
                "admin",
                Text,
                Default("127.0.0.1:9464"),
                "Where `/metrics`, `/healthz` and `/readyz` are, and where `seeway reload`, `drain` and `resume` come in; written like `grpc`. \
                 `\"\"` switches them off.",
            ),
            key(
                "management",
                Text,
                Optional("changes come in at `admin`"),
                "Where `seeway reload`, `drain` and `resume` come in instead of at `admin`: `unix:/path`, or `tls:host:port` with what \
                 `[management_tls]` says. Who may ask for them is said by a `[[permission]]` with `admin`.",
            ),
            key(
                "socket_mode",
                Text,
                Default("0660"),
                "The permission bits of every Unix socket, in octal. Whoever may write to the socket may send jobs.",
            ),
            key(
                "socket_group",
                Text,
                Optional("the gateway's own group"),
                "The group that owns every Unix socket, by name or number.",
            ),
        ],
    },
    Table {
        name: "tls",
        many: false,
        doc: "TLS 1.3 for gRPC callers, and for legacy callers at `tls:` addresses. The files are read again when they change; open \
              connections stay.",
        keys: TLS_KEYS,
    },
    Table {
        name: "management_tls",
        many: false,
        doc: "The same for `listen.management`: certificates and authorities of its own, so that a caller's certificate is none there, \
              and an operator's is none at the front ends.",
        keys: TLS_KEYS,
    },
    Table {
        name: "permission",
        many: true,
        doc: "Who may do what on which worlds. Without any, everybody who can connect may everything; with one, nobody may what none \
              allows. Rules only allow; where several do, the first one's quota counts. `seeway check --as WHO` says what somebody may.",
        keys: &[
            key(
                "name",
                Text,
                Optional("`rule-` and its place, from 1"),
                "What logs and `check --as` call it; unique among rules.",
            ),
            key(
                "who",
                List,
                Required,
                "Whom it is about: patterns in which `*` stands for any characters and `?` for one. `user:` (a Unix user, at a Unix \
                 socket), `certificate:` (a SPIFFE ID, else another alternative name, else the common name) or `token:` (the subject) \
                 before a pattern says by which means the name must have been shown; without it any will do. `group:`, `user-group:` \
                 and `token-group:` are about groups. `anonymous` are those who showed nothing.",
            ),
            key(
                "may",
                List,
                Required,
                "What they may do: `submit` jobs, `pipe` bytes to a machine's port, send other commands to the `hardserver` behind; or \
                 `admin`: reload, drain and resume, in a rule of its own.",
            ),
            key("worlds", List, Default("*"), "On which worlds: patterns for their names."),
            key(
                "jobs_per_second",
                Integer(0, 1_000_000_000),
                Default("0"),
                "Jobs that each of them may submit in a second, a second's at once at most. This quota and the next two count one \
                 identity's jobs over all its connections; a job above one is not sent (CLIENT_QUOTA). 0: no such quota.",
            ),
            key(
                "in_flight",
                Integer(0, 1 << 24),
                Default("0"),
                "Jobs that each of them may have in hand, waiting or sent. 0: no such quota.",
            ),
            key(
                "bytes_per_second",
                Integer(0, 1 << 40),
                Default("0"),
                "Bytes of jobs that each of them may submit in a second. 0: no such quota.",
            ),
        ],
    },
    Table {
        name: "machine",
        many: true,
        doc: "One CodeSafe machine, reached through one SSH server. At least one is needed.",
        keys: &[
            key("name", Text, Required, "What logs, metrics and outcomes call it; unique among machines."),
            key(
                "address",
                Text,
                Required,
                "Its SSH server: a name, an IPv4 address or an IPv6 address in brackets, and a port, such as \
                 `\"hsm-a.example:22\"`.",
            ),
            key("user", Text, Default("codesafe"), "The login at the SSH server."),
            key(
                "identity",
                Text,
                Required,
                "The file of the private key to log in with (`seeway keygen` makes one), which must not be readable by others; with \
                 `agent`, the file of its public half. Ed25519, ECDSA, or RSA of 3072 bits or more. This file's name and the next \
                 two may be `credential:NAME`: what systemd hands to the service under that name (`LoadCredential=`). A reload reads \
                 all of them again.",
            ),
            key(
                "identity_passphrase",
                Text,
                Optional("the key has none"),
                "The file whose first line is the private key's passphrase. It must not be readable by others.",
            ),
            key(
                "certificate",
                Text,
                Optional("the bare key logs in"),
                "The file of an OpenSSH certificate for the key (`ssh-keygen -s`), for users, that permits port forwarding.",
            ),
            key(
                "agent",
                Text,
                Optional("the key is read from its file"),
                "The socket of an ssh-agent that has the private key and signs with it, or `\"env\"`: the one that `SSH_AUTH_SOCK` \
                 names.",
            ),
            key(
                "host_key",
                Text,
                Optional("see `host_ca`"),
                "The SSH server's public key, such as `\"ssh-ed25519 AAAA…\"`. One of `host_key`, `known_hosts` and `host_ca` is \
                 required.",
            ),
            key(
                "known_hosts",
                Text,
                Optional("see `host_ca`"),
                "A file in OpenSSH's `known_hosts` form that has the address's keys, or authorities' keys (`@cert-authority`).",
            ),
            key(
                "host_ca",
                Text,
                Optional("see `host_key`"),
                "The public key of the authority that signs host certificates, such as `\"ssh-ed25519 AAAA…\"`: the SSH server has to \
                 show a certificate of it for the host's name in `address`.",
            ),
            key(
                "seejobs_host",
                Text,
                Default("127.0.0.1"),
                "The host of the machine's SEEJobs port, as the SSH server sees it.",
            ),
            key("seejobs_port", Integer(1, 65_535), Default("8888"), "The machine's SEEJobs port."),
            key(
                "tunnels",
                Integer(1, 64),
                Default("1"),
                "SSH connections, for each shard; one more for `bulk_channels`.",
            ),
            key("channels", Integer(1, 64), Default("2"), "SEEJob streams on each tunnel."),
            key(
                "bulk_channels",
                Integer(0, 64),
                Default("1"),
                "SEEJob streams on a further tunnel, for jobs above `limits.bulk_above` only, so that small jobs do not wait \
                 behind large ones. It is made when the first large job has come. 0: large jobs share the others.",
            ),
            key(
                "max_in_flight",
                Integer(1, 65_536),
                Default("1024"),
                "Jobs sent and unanswered, over all its channels.",
            ),
        ],
    },
    Table {
        name: "world",
        many: true,
        doc: "One SEE world: one application, on one or more machines. At least one is needed.",
        keys: &[
            key("name", Text, Required, "What gRPC callers name; unique among worlds."),
            key(
                "published_as",
                Text,
                Optional("the `name`"),
                "What a legacy caller's `GetPublishedObject` finds; unique among worlds.",
            ),
            key("machines", List, Required, "The names of the machines that run the application; at least one."),
            key(
                "idempotent",
                Boolean,
                Default("false"),
                "Whether legacy callers' jobs are safe to run twice. Where they are, a job whose outcome became unknown is sent \
                 again. gRPC callers say it for each job.",
            ),
            key(
                "affinity",
                Text,
                Default("prefer"),
                "What becomes of a job with an `affinity_key` whose machine is down: `\"prefer\"` sends it to the key's next machine, \
                 `\"strict\"` fails it (NotAvailable).",
            ),
        ],
    },
    Table {
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
        ],
    },
    Table {
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
            key(
                "default_timeout",
                Duration { zero: false },
                Default("60s"),
                "The deadline of jobs whose caller set none.",
            ),
            key("callers", Integer(1, 1 << 20), Default("10000"), "Connections at the front ends, all together."),
            key(
                "peer_callers",
                Integer(0, 1 << 20),
                Default("0"),
                "Those of one IP address (of IPv6: of one /64), or of one Unix user. 0: nine tenths of `callers`, so that whoever takes all \
                 that there are leaves some for others.",
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
    },
    Table {
        name: "ssh",
        many: false,
        doc: "How tunnels are made, watched and made again.",
        keys: &[
            key(
                "connect_timeout",
                Duration { zero: false },
                Default("10s"),
                "For TCP, SSH, login and channels together.",
            ),
            key(
                "connect_retry",
                Duration { zero: false },
                Default("200ms"),
                "The back-off's first wait after a tunnel was lost or could not be made; each next one is twice as long.",
            ),
            key("retry_max", Duration { zero: false }, Default("10s"), "The back-off's ceiling."),
            key(
                "refused_retry",
                Duration { zero: false },
                Default("5m"),
                "How soon a tunnel is tried again whose host key or login was refused: what only a person can mend is not \
                 hammered at.",
            ),
            key("keepalive_idle", Duration { zero: false }, Default("30s"), "Silence before the first keepalive."),
            key("keepalive", Duration { zero: false }, Default("10s"), "Between one keepalive and the next."),
            key(
                "broken_after",
                Duration { zero: false },
                Default("90s"),
                "Silence after which a tunnel counts as broken; at least `keepalive_idle` and `keepalive` together.",
            ),
            key(
                "max_age",
                Duration { zero: true },
                Default("12h"),
                "How old a tunnel may become. Up to a tenth earlier (by chance, so that not all go at once) another one is made, and \
                 when that is up the old one takes no more jobs, finishes those that it has, and is closed. `\"0s\"`: any age.",
            ),
            key(
                "connect_pace",
                Duration { zero: true },
                Default("20ms"),
                "The least time between two connects to one SSH server, over all shards, so that after a power cut it is not met by \
                 all tunnels at once.",
            ),
            key(
                "rekey_bytes",
                Integer(1 << 16, 1 << 30),
                Default("1073741824"),
                "New SSH keys are agreed on after this many bytes in either direction. The server may ask for them earlier.",
            ),
            key("rekey_after", Duration { zero: false }, Default("1h"), "New SSH keys are agreed on after this time."),
            key(
                "algorithms",
                Text,
                Default("modern"),
                "What tunnels may be made with: `\"modern\"`, or `\"fips\"`, what the FIPS publications approve of it. \
                 `seeway check --algorithms` lists both.",
            ),
        ],
    },
    Table {
        name: "retry",
        many: false,
        doc: "How often an idempotent job is tried. No other job is ever sent twice.",
        keys: &[
            key(
                "max_attempts",
                Integer(1, 100),
                Default("3"),
                "How often one idempotent job is sent in all. 1 never sends again.",
            ),
            key(
                "budget_percent",
                Integer(0, 100),
                Default("10"),
                "How many jobs may be sent again for each hundred that are sent, for each world and shard: so that retries can't \
                 become the outage.",
            ),
            key(
                "reserve",
                Integer(0, 1 << 20),
                Default("100"),
                "How many jobs may be sent again besides, for each world and shard, since the gateway began. Room for a first bad \
                 moment.",
            ),
        ],
    },
    Table {
        name: "balance",
        many: false,
        doc: "How jobs are spread over a world's machines.",
        keys: &[key(
            "slow_start",
            Duration { zero: true },
            Default("10s"),
            "A machine that comes back while others of its world are up takes load step by step, for this long at most. `\"0s\"`: \
             all at once.",
        )],
    },
    Table {
        name: "circuit",
        many: false,
        doc: "When a machine gets no more jobs because it fails them. The last one of a world always gets them.",
        keys: &[
            key(
                "failures",
                Integer(0, 1 << 20),
                Default("5"),
                "Jobs in a row that the machine failed (SEEWorldFailed), did not answer in time or lost with a channel, after which it \
                 is ejected. 0: it never is, for any reason.",
            ),
            key(
                "silent_after",
                Duration { zero: false },
                Default("15s"),
                "How long a machine that has jobs may answer none of them before it is ejected.",
            ),
            key(
                "probe_after",
                Duration { zero: false },
                Default("5s"),
                "How long an ejected machine gets nothing. Then it is probed: with a NoOp, then with one job. Each further ejection in \
                 a row lasts twice as long, up to `probe_max`.",
            ),
            key("probe_max", Duration { zero: false }, Default("2m"), "The longest ejection; at least `probe_after`."),
        ],
    },
    Table {
        name: "wire",
        many: false,
        doc: "The numbers of the SEEJob wire.",
        keys: &[key(
            "profile",
            Text,
            Optional("the built-in `open-1`"),
            "A TOML file with the wire's numbers, for a site that owns the vendor's headers.",
        )],
    },
    Table {
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
                Text,
                Default("stop"),
                "What a full disk, or a server that takes no records, means to jobs: `\"stop\"` refuses new ones (not sent, NotAvailable) \
                 until records can be written again; `\"drop\"` lets them run, and drops and counts records that `buffer` has no room for.",
            ),
            key(
                "sync",
                Text,
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
    },
    Table {
        name: "process",
        many: false,
        doc: "What the gateway's process takes away from itself when it listens. Core files and debuggers are off in any case.",
        keys: &[
            key(
                "sandbox",
                Text,
                Default("prefer"),
                "Takes away files, ports (Landlock) and system calls (seccomp) that a running gateway does not need. `\"prefer\"`: as far \
                 as the kernel can, with a warning where it can't. `\"require\"`: else it does not start. `\"off\"`: nothing. New files \
                 are read at a reload from the folders of those that it was started with, and from no others.",
            ),
            key(
                "lock_memory",
                Text,
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
                 `listen.upstream_hardserver` and of `token.jwks`. Machines that a reload adds must be at these ports too.",
            ),
        ],
    },
    Table {
        name: "token",
        many: false,
        doc: "OAuth 2.0 access tokens and OpenID Connect ID tokens (signed JWTs) of gRPC callers, sent as `authorization: Bearer TOKEN`. \
              Taken where `jwks` is there; `issuer` and `audience` must be there with it.",
        keys: &[
            key(
                "jwks",
                Text,
                Optional("no tokens are taken"),
                "The provider's JSON Web Key Set: a file, which is read again when it has changed, or the `https://` address that the \
                 provider calls `jwks_uri` (`http://` for this computer only). Keys that are taken: RSA, EC P-256 and P-384, Ed25519.",
            ),
            key("issuer", Text, Optional("required with `jwks`"), "What a token's `iss` has to be, letter for letter."),
            key(
                "audience",
                Text,
                Optional("required with `jwks`"),
                "What has to be in a token's `aud`: this gateway's name at the provider.",
            ),
            key("name_claim", Text, Default("sub"), "The claim that holds the caller's name, at most 256 bytes."),
            key(
                "groups_claim",
                Text,
                Default("groups"),
                "The claim that holds the caller's groups: a list of strings, or one string with blanks between them. At most 256.",
            ),
            key(
                "leeway",
                Duration { zero: true },
                Default("30s"),
                "How far the provider's clock and this computer's may differ; at most `\"5m\"`.",
            ),
            key(
                "rsa_min_bits",
                Integer(2048, 8192),
                Default("3072"),
                "RSA keys of fewer bits are passed over. Many providers sign with 2048: write that only if yours can't be changed.",
            ),
            key(
                "refresh",
                Duration { zero: false },
                Default("5m"),
                "How often the keys are read again. A token with an unknown key has them read at once, but not within 30 s of the \
                 last time.",
            ),
            key(
                "stale",
                Duration { zero: false },
                Default("24h"),
                "How long the last keys stay in use while no others can be read; at least `refresh`. After that all tokens are refused.",
            ),
            key(
                "ca",
                Text,
                Optional("what this system trusts"),
                "A file with the certificates, in PEM form, that the provider's own must lead to. What this system trusts: \
                 `SSL_CERT_FILE`, or the system's bundle below `/etc`.",
            ),
        ],
    },
];

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Its header as it stands in the file.
    pub(super) fn header(&self) -> String {
        if self.many { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

/// The table of this name.
pub(super) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// The name among `names` that was probably meant by `written`.
pub(super) fn probably<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let written = plain(written);
    names
        .map(|name| (distance(&written, &plain(name)), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    // cost[i][j]: of making the first i letters of `one` the first j of `other`.
    let mut cost = vec![vec![0; other.len() + 1]; one.len() + 1];
    for (i, row) in cost.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, first) in cost[0].iter_mut().enumerate() {
        *first = j;
    }
    for i in 1..=one.len() {
        for j in 1..=other.len() {
            let change = usize::from(one[i - 1] != other[j - 1]);
            let mut least = (cost[i - 1][j] + 1).min(cost[i][j - 1] + 1).min(cost[i - 1][j - 1] + change);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(cost[i - 2][j - 2] + 1);
            }
            cost[i][j] = least;
        }
    }
    cost[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_that_was_meant() {
        let machine = table("machine").expect("in the table");
        let names = || machine.keys.iter().map(|key| key.name);
        for (written, meant) in [
            ("adress", Some("address")),
            ("host-key", Some("host_key")),
            ("Name", Some("name")),
            ("tunnel", Some("tunnels")),
            ("max_inflight", Some("max_in_flight")),
            ("sue", Some("user")),
            ("password", None),
        ] {
            assert_eq!(probably(written, names()), meant, "{written}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (position, table) in TABLES.iter().enumerate() {
            assert!(TABLES[..position].iter().all(|other| other.name != table.name));
            for (position, key) in table.keys.iter().enumerate() {
                assert!(table.keys[..position].iter().all(|other| other.name != key.name));
            }
        }
    }
}
