//! What jobs are sent to: machines, worlds, and how they are reached and judged.

use super::Kind::{Boolean, Choice, Duration, Integer, List, Text};
use super::Unset::{Default, Optional, Required};
use super::{Table, key};

/// `[[machine]]`.
pub(super) const MACHINE: Table = Table {
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
        key("tunnels", Integer(1, 64), Default("1"), "SSH connections, for each shard; one more for `bulk_channels`."),
        key("channels", Integer(1, 64), Default("2"), "SEEJob streams on each tunnel."),
        key(
            "bulk_channels",
            Integer(0, 64),
            Default("1"),
            "SEEJob streams on a further tunnel, for jobs above `limits.bulk_above` only, so that small jobs do not wait \
             behind large ones. It is made when the first large job has come. 0: large jobs share the others.",
        ),
        key("max_in_flight", Integer(1, 65_536), Default("1024"), "Jobs sent and unanswered, over all its channels."),
    ],
};

/// `[[world]]`.
pub(super) const WORLD: Table = Table {
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
            Choice(&["prefer", "strict"]),
            Default("prefer"),
            "What becomes of a job with an `affinity_key` whose machine is down: `\"prefer\"` sends it to the key's next machine, \
             `\"strict\"` fails it (NotAvailable).",
        ),
    ],
};

/// `[ssh]`.
pub(super) const SSH: Table = Table {
    name: "ssh",
    many: false,
    doc: "How tunnels are made, watched and made again.",
    keys: &[
        key("connect_timeout", Duration { zero: false }, Default("10s"), "For TCP, SSH, login and channels together."),
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
            Choice(&["modern", "fips"]),
            Default("modern"),
            "What tunnels may be made with: `\"modern\"`, or `\"fips\"`, what the FIPS publications approve of it. \
             `seeway check --algorithms` lists both.",
        ),
    ],
};

/// `[retry]`.
pub(super) const RETRY: Table = Table {
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
};

/// `[balance]`.
pub(super) const BALANCE: Table = Table {
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
};

/// `[circuit]`.
pub(super) const CIRCUIT: Table = Table {
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
};

/// `[wire]`.
pub(super) const WIRE: Table = Table {
    name: "wire",
    many: false,
    doc: "The numbers of the SEEJob wire.",
    keys: &[key(
        "profile",
        Text,
        Optional("the built-in `open-1`"),
        "A TOML file with the wire's numbers, for a site that owns the vendor's headers.",
    )],
};
