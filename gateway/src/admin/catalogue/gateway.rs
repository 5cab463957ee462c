//! What is shown of the gateway itself: its limits, who is let in, its audit log, its traces, its process.

use super::Metric;
use super::labels::{
    HANDED_OVER, HANDSHAKE, LIMIT, LIMIT_SECONDS, NEAR, READ, RECORDED, SPANS, TAKEN, TLS_FILE, TLS_LISTENER, VERSION,
};

pub(super) const LIMITS: &[Metric] = &[
    Metric::gauge(
        "seeway_limit_used_ratio",
        &[NEAR],
        "How much of a limit is used, 0 to 1; of the worlds, machines, listeners and peers that have one each the fullest counts",
        "above 0.8: raise the limit, or find out who takes so much. At 1 the next one is refused or waits, [as the limit \
         has it](operations.md#limits-and-what-happens-at-each)",
    ),
    Metric::gauge(
        "seeway_limit",
        &[LIMIT],
        "What the configuration limits, by the name of its key in [limits]",
        "only a reload changes it",
    ),
    Metric::gauge(
        "seeway_limit_seconds",
        &[LIMIT_SECONDS],
        "How long the configuration has things wait, by the name of its key in [limits]",
        "only a reload changes it",
    ),
];

pub(super) const WAYS_IN: &[Metric] = &[
    Metric::counter(
        "seeway_tls_handshakes_total",
        &[TLS_LISTENER, HANDSHAKE],
        "Connections that wanted TLS: agreed on, failed, later than handshake_timeout, or closed at once for too many",
        "`failed`: no certificate, a bad or a revoked one, or nothing in common. `refused`: `handshakes` or `peer_handshakes` is \
         reached, by an attack or by clients that all come back at once",
    ),
    Metric::counter(
        "seeway_tls_reloads_total",
        &[TLS_LISTENER, TAKEN],
        "Certificates and lists read again, by whether they could be used",
        "`refused`: the last good ones stay, until they expire; the log says what is wrong",
    ),
    Metric::counter(
        "seeway_tls_withdrawn_total",
        &[TLS_LISTENER],
        "Open connections that were closed because their certificates were withdrawn",
        "a new list of revoked certificates has them, or `client_ca` has lost their authority: was that meant?",
    ),
    Metric::gauge(
        "seeway_tls_expires_timestamp_seconds",
        &[TLS_LISTENER, TLS_FILE],
        "When the first certificate in the file expires, or the list of revoked ones should be replaced; +Inf where there is none",
        "`certificate`: a month before, have another one made; callers do not believe it afterwards. `client_ca`: an authority that has \
         ended still counts here, and signs nobody's certificate any more. `crl`: the authority's new list has not come, and `expired_crl` \
         says whether its callers still get in",
    ),
    Metric::counter(
        "seeway_tokens_total",
        &[TAKEN],
        "Tokens that came with calls, by whether they were good",
        "`refused`: expired, for somebody else, or by a key that the provider no longer has; the caller is told which",
    ),
    Metric::counter(
        "seeway_token_keys_reads_total",
        &[READ],
        "Reads of the provider's keys, by whether they could be read",
        "`failed`: the provider can not be reached or does not answer with keys; the log says why",
    ),
    Metric::gauge("seeway_token_keys", &[], "The provider's keys in use", "0 with `[token]` set: no token is taken"),
    Metric::gauge(
        "seeway_token_keys_age_seconds",
        &[],
        "How long ago the provider's keys were read, or, where none ever were, were first wanted; 0 without [token]",
        "it grows while they can not be read; after `token.stale` all tokens are refused, and until then as well where `seeway_token_keys` is 0",
    ),
];

pub(super) const AUDIT: &[Metric] = &[
    Metric::counter(
        "seeway_audit_records_total",
        &[RECORDED],
        "Records of the audit log: written, or dropped for want of room",
        "`dropped`: [the log](design/audit.md) has a gap, which it says itself; its target is too slow, or `audit.buffer` too small",
    ),
    Metric::counter(
        "seeway_audit_failures_total",
        &[],
        "How often the target of the audit log took no records",
        "the disk is full or the collector away",
    ),
    Metric::gauge(
        "seeway_audit_failing",
        &[],
        "Whether the target of the audit log takes no records now: 1, or 0",
        "1: records wait in memory; mend the target before `audit.buffer` is full",
    ),
    Metric::counter(
        "seeway_audit_jobs_refused_total",
        &[],
        "Jobs refused because nobody could record them; seeway_jobs_total does not have them",
        "`audit.when_full = \"stop\"` holds jobs back until the target takes records again",
    ),
    Metric::gauge(
        "seeway_audit_sequence",
        &[],
        "The number of the last record that was written",
        "it grows with each record; `/audit` has its hash",
    ),
    Metric::gauge(
        "seeway_audit_waiting",
        &[],
        "Records that wait or are being written",
        "near `seeway_audit_buffer`: the target is too slow",
    ),
    Metric::gauge(
        "seeway_audit_buffer",
        &[],
        "How many records may wait; 0 where there is no audit log",
        "`audit.buffer`; only a reload changes it",
    ),
];

pub(super) const TRACES: &[Metric] = &[Metric::counter(
    "seeway_spans_total",
    &[SPANS],
    "Spans of sampled jobs: sent to the collector, dropped for want of room, or lost because it refused them or was away",
    "`failed`: the collector of [spans](tracing.md) is away or refuses; `dropped`: it is too slow, or `trace.sample_ratio` too large. No job suffers",
)];

pub(super) const GATEWAY: &[Metric] = &[
    Metric::gauge(
        "seeway_build_info",
        &[VERSION],
        "Always 1; its label is the gateway's version",
        "another version: it was upgraded",
    ),
    Metric::gauge(
        "seeway_shards",
        &[],
        "Threads of the data plane",
        "`runtime.shards`; fewer: one has ended unasked, and the gateway with it",
    ),
    Metric::gauge(
        "seeway_tasks",
        &[],
        "Tasks on the shards' own threads",
        "one that grows without callers is [a leak](operations.md#leaks)",
    ),
    Metric::gauge(
        "seeway_draining",
        &[],
        "Whether the gateway takes no new jobs: 1, or 0",
        "1 for longer than maintenance takes: somebody has drained it and not resumed it",
    ),
    Metric::counter(
        "seeway_reloads_total",
        &[TAKEN],
        "Reloads, by whether the file was taken, or refused and changed nothing",
        "`refused`: the file has problems, or needs a restart; the log names line and key",
    ),
    Metric::counter(
        "seeway_handovers_total",
        &[READ],
        "Takings-over: this gateway from the one before it, and others that wanted to take over from this one and did not",
        "`failed`: an upgrade has not come about, and this gateway goes on; the new one's log says why",
    ),
    Metric::counter(
        "seeway_handed_over_total",
        &[HANDED_OVER],
        "What this gateway got from the one before it: listening sockets and legacy connections",
        "to see what an upgrade has moved",
    ),
    Metric::gauge(
        "seeway_config_loaded_timestamp_seconds",
        &[],
        "When the configuration that is in force was read, in seconds since 1970",
        "older than the file: reload",
    ),
];

pub(super) const PROCESS: &[Metric] = &[
    Metric::counter(
        "process_cpu_seconds_total",
        &[],
        "Processor time that the process has used, in user space and in the kernel",
        "its rate is cores in use; near `runtime.shards` the shards are at their limit",
    ),
    Metric::gauge(
        "process_resident_memory_bytes",
        &[],
        "Memory of the process that is in RAM",
        "[what may hold how much](operations.md#limits-and-what-happens-at-each); set `MemoryMax=` in the unit",
    ),
    Metric::gauge(
        "process_virtual_memory_bytes",
        &[],
        "Address space of the process",
        "it says little by itself: most of it is never used",
    ),
    Metric::gauge(
        "process_open_fds",
        &[],
        "Files, sockets and pipes that the process holds open",
        "near `process_max_fds` connections are refused: raise `LimitNOFILE=` in the unit",
    ),
    Metric::gauge(
        "process_max_fds",
        &[],
        "How many files, sockets and pipes it may hold open; +Inf where the system sets no limit",
        "it is what the unit's `LimitNOFILE=` says",
    ),
    Metric::gauge(
        "process_threads",
        &[],
        "Threads of the process",
        "shards, the control plane, and one for large jobs; files are read on others, which come and go",
    ),
    Metric::gauge(
        "process_start_time_seconds",
        &[],
        "When the process was started, in seconds since 1970",
        "it was started again: every counter begins at 0",
    ),
];
