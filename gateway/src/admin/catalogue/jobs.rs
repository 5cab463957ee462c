//! What is shown of jobs and of callers.

use super::Metric;
use super::labels::{LAST_MACHINE, LISTENER, OUTCOME, PASSED, WORLD};

pub(super) const JOBS: &[Metric] = &[
    Metric::counter(
        "seeway_jobs_total",
        &[WORLD, LAST_MACHINE, LISTENER, OUTCOME],
        "Jobs that ended, by what became of them; machine is the one that had the job last, none where none has it",
        "`unknown_…`: callers have to find out whether these have run; look at the machine's tunnels. `not_sent_…`: nothing ran; \
         the machines are down or too slow. [What each is](outcomes.md#the-table)",
    ),
    Metric::histogram(
        "seeway_job_seconds",
        &[WORLD, LISTENER],
        "From a job's admission to its outcome, whatever that is",
        "compare with `seeway_queue_seconds` and `seeway_machine_seconds`: either the queue is long or the machine is slow",
    ),
    Metric::histogram(
        "seeway_queue_seconds",
        &[WORLD],
        "From a job's admission to when it was last handed to a channel, or to its end where it never was",
        "the machines have no room: compare `seeway_jobs_in_flight` with `seeway_max_in_flight`, and see whether one is down",
    ),
    Metric::gauge(
        "seeway_jobs",
        &[],
        "Jobs in hand: queued, or sent and waited for",
        "with no callers it is 0; where it is not see [leaks](operations.md#leaks)",
    ),
    Metric::gauge(
        "seeway_jobs_queued",
        &[WORLD],
        "Jobs that wait for a channel",
        "above 0 for minutes: the machines are at their limit, or down",
    ),
    Metric::gauge(
        "seeway_queue_bytes",
        &[WORLD],
        "Bytes of the jobs that wait",
        "near `limits.queue_bytes` jobs are refused: add machines, or find the caller that sends so much",
    ),
    Metric::counter(
        "seeway_job_bytes_total",
        &[WORLD],
        "Bytes of jobs that were admitted, counted when they end",
        "what callers send; divided by the jobs it is their mean size",
    ),
    Metric::counter(
        "seeway_reply_bytes_total",
        &[WORLD],
        "Bytes of replies that callers were given",
        "what machines answer; divided by the jobs that were `replied` it is the mean size of a reply",
    ),
    Metric::counter(
        "seeway_rejected_total",
        &[],
        "Requests that never became a job of a world: no such world or handle, or something is wrong with the request",
        "a caller is set up wrongly: gRPC callers are told what is wrong, legacy ones get UnknownID, UnknownCommand or Malformed",
    ),
    Metric::counter(
        "seeway_retries_total",
        &[WORLD],
        "Idempotent jobs that were sent again after an unknown outcome",
        "tunnels are lost or machines fail: see `seeway_jobs_total` by machine",
    ),
    Metric::counter(
        "seeway_retries_refused_total",
        &[WORLD],
        "Idempotent jobs that could have been sent again, and were not because of the budget of [retry]",
        "so many jobs fail that retries are held back: look at the machines",
    ),
    Metric::gauge(
        "seeway_world_ready",
        &[WORLD],
        "Whether the world can take a job now: 1, or 0",
        "0: none of its machines is up. Jobs are held, and after `limits.hold` they fail; see `seeway_machine_state`",
    ),
];

pub(super) const CALLERS: &[Metric] = &[
    Metric::gauge(
        "seeway_callers",
        &[LISTENER],
        "Callers: connections at the hardserver front end; connections and open Stream calls at that of gRPC",
        "a sudden fall is a network or a load balancer; for growth see `seeway_limit_used_ratio`",
    ),
    Metric::gauge(
        "seeway_callers_paused",
        &[LISTENER],
        "Connections and streams that are not read from now, because one of the caller's limits is reached",
        "above 0 for minutes: callers ask for more than their quotas; others are not affected",
    ),
    Metric::counter(
        "seeway_callers_refused_total",
        &[],
        "Connections closed at once because of limits.callers or limits.peer_callers",
        "raise the limit, or find who opens so many; one in ten seconds is in the log, with its address or user",
    ),
    Metric::counter(
        "seeway_callers_late_total",
        &[LISTENER],
        "Connections closed, and calls failed, because a message had not come within limits.message_timeout",
        "callers that stop in the middle of a message: a broken network, or somebody who holds connections open",
    ),
    Metric::counter(
        "seeway_callers_broken_total",
        &[],
        "Legacy connections closed because what they sent was no message",
        "somebody speaks another protocol there; one in ten seconds is in the log, with its address",
    ),
    Metric::gauge(
        "seeway_pipes",
        &[],
        "Pipes that are open",
        "with no callers it is 0; for growth see `seeway_limit_used_ratio`",
    ),
    Metric::gauge(
        "seeway_upstream_hardserver_connections",
        &[],
        "Connections to the hardserver behind Seeway, at most one for each legacy caller",
        "0 while legacy callers use it: it is away. [Beside a hardserver](protocol.md#beside-a-hardserver)",
    ),
    Metric::counter(
        "seeway_upstream_hardserver_commands_total",
        &[PASSED],
        "Commands that were passed on to the hardserver and ended; those of callers that went away first are not counted",
        "`not_sent`: it could not be reached; `unknown`: the connection was lost first. Look after the hardserver",
    ),
];
