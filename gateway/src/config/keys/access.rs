//! Who comes in, where, and what they may do.

use super::Kind::{Choice, Choices, Duration, Integer, List, Text};
use super::Unset::{Default, Optional, Required};
use super::{Key, Table, key};

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
        Choice(&["required", "optional"]),
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
        Choice(&["refuse", "accept"]),
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
        "peer_handshakes",
        Integer(1, 65_536),
        Default("64"),
        "How many of them may be from one address (one IPv6 network of 64 bits). Behind a proxy that hides its callers' addresses: as many \
         as `handshakes`.",
    ),
    key(
        "max_age",
        Duration { zero: true },
        Default("1h"),
        "How old a gRPC connection may become before its caller is asked to make another one, so that certificates that have expired do not stay. \
         `\"0s\"`: any age.",
    ),
];

/// `[listen]`.
pub(super) const LISTEN: Table = Table {
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
             A loopback address, unless `management` is set: then nothing is changed here, and probes and Prometheus may come from elsewhere; those see these \
             three pages and nothing else. \
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
            "handover",
            Text,
            Optional("nobody can take over"),
            "`unix:/path`: where a gateway that is started with `seeway serve --take-over` asks this one for its listeners and \
             callers ([upgrades](operations.md#upgrade)). Only the gateway's own user and root are answered.",
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
};

/// `[tls]`.
pub(super) const TLS: Table = Table {
    name: "tls",
    many: false,
    doc: "TLS 1.3 for gRPC callers, and for legacy callers at `tls:` addresses. The files are read again when they change; open \
          connections stay.",
    keys: TLS_KEYS,
};

/// `[management_tls]`.
pub(super) const MANAGEMENT_TLS: Table = Table {
    name: "management_tls",
    many: false,
    doc: "The same for `listen.management`: certificates and authorities of its own, so that a caller's certificate is none there, \
          and an operator's is none at the front ends.",
    keys: TLS_KEYS,
};

/// `[[permission]]`.
pub(super) const PERMISSION: Table = Table {
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
            Choices(&["submit", "pipe", "hardserver", "admin"]),
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
};

/// `[token]`.
pub(super) const TOKEN: Table = Table {
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
};
