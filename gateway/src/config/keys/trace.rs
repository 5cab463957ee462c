//! What is told of jobs to a collector of traces.

use super::Kind::{Duration, Integer, Text};
use super::Unset::{Default, Optional};
use super::{Table, key};

/// `[trace]`.
pub(super) const TRACE: Table = Table {
    name: "trace",
    many: false,
    doc: "Traces: a span for each job that is sampled, sent to a collector by OTLP over gRPC ([what a span has](tracing.md)). Spans are made \
          where `endpoint` is there.",
    keys: &[
        key(
            "endpoint",
            Text,
            Optional("no spans are made"),
            "Where the collector takes OTLP over gRPC: `https://host:port`, or `http://` for one on this computer. Without a port: 4317.",
        ),
        key(
            "sample_ratio",
            Text,
            Default("0.01"),
            "Which part of the jobs is sampled whose callers do not say, `\"0\"` to `\"1\"`. What a caller's `traceparent` says counts in any \
             case.",
        ),
        key(
            "service_name",
            Text,
            Default("seeway"),
            "What spans say that they are of (`service.name`), at most 256 bytes.",
        ),
        key(
            "ca",
            Text,
            Optional("what this system trusts"),
            "With `https://`: a file with the certificates, in PEM form, that the collector's own must lead to. What this system trusts: \
             `SSL_CERT_FILE`, or the system's bundle below `/etc`.",
        ),
        key(
            "authorization",
            Text,
            Optional("none is sent"),
            "With `https://`: a file, for this user only, with the `authorization` header that the collector wants, such as \
             `Bearer TOKEN`. It is read again for each request.",
        ),
        key("timeout", Duration { zero: false }, Default("10s"), "How long a request may take; at most `\"60s\"`."),
        key(
            "interval",
            Duration { zero: false },
            Default("1s"),
            "How often spans are sent, where fewer than 512 wait; at most `\"60s\"`.",
        ),
        key(
            "queue",
            Integer(1, 1 << 20),
            Default("8192"),
            "Spans that may wait to be sent, of about 400 bytes each, and sampled jobs that each shard may have in hand. What is above it is \
             dropped, and counted.",
        ),
    ],
};
