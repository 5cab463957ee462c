//! What is shown of machines, and of the tunnels to them.

use super::Metric;
use super::labels::{MACHINE, MACHINE_STATE, TUNNEL_STATE};

pub(super) const MACHINES: &[Metric] = &[
    Metric::histogram(
        "seeway_machine_seconds",
        &[MACHINE],
        "From when a job was handed to a channel to its reply",
        "the machine is slow, or the way to it: compare with `seeway_keepalive_seconds`, which is the way alone",
    ),
    Metric::histogram(
        "seeway_keepalive_seconds",
        &[MACHINE],
        "Round trips of SSH keepalives, which a tunnel sends when nothing has come for ssh.keepalive_idle",
        "the network to the machine or its SSH server is slow. A busy tunnel sends none",
    ),
    Metric::gauge(
        "seeway_machine_state",
        &[MACHINE, MACHINE_STATE],
        "On how many shards the machine is in this state",
        "`down`: no channel is up, so see `seeway_tunnels`. `ejected`, `probing`: it failed jobs or was silent. `starting`: it has \
         just come back and takes load step by step. `draining`: an operator took it out, `seeway resume --machine` puts it back",
    ),
    Metric::counter(
        "seeway_ejections_total",
        &[MACHINE],
        "How often the machine was ejected, because it failed jobs or was silent",
        "look at the machine: it takes jobs and fails them, or does not answer. [When](design/scheduler.md#rules)",
    ),
    Metric::gauge(
        "seeway_jobs_in_flight",
        &[MACHINE],
        "Jobs sent and unanswered, waited for or not",
        "above 0 without callers: the machine owes replies. Shards are asked one after the other, so that it may read a few more \
         than `seeway_max_in_flight` though no more were sent",
    ),
    Metric::gauge("seeway_max_in_flight", &[MACHINE], "The machine's max_in_flight", "only a reload changes it"),
    Metric::gauge(
        "seeway_channels",
        &[MACHINE],
        "SEEJob streams that are up: those of all tunnels and shards, and twice as many while tunnels are replaced",
        "0 with a tunnel that is `ready`: the SSH server answers, and the machine behind it does not",
    ),
    Metric::gauge(
        "seeway_tunnels",
        &[MACHINE, TUNNEL_STATE],
        "Tunnels, those for large jobs among them, by what they do",
        "`refused`: a host key, a login or the algorithms; it does not mend itself. `backing_off`: the server can not be reached. \
         [The states](design/scheduler.md#the-pools); the log has the reason, and `seeway check --connect` tries it",
    ),
    Metric::counter(
        "seeway_tunnels_made_total",
        &[MACHINE],
        "Tunnels that were made",
        "more than one for each `ssh.max_age` or reload: tunnels are lost; the log says why",
    ),
    Metric::counter(
        "seeway_tunnels_refused_total",
        &[MACHINE],
        "Connects that failed for the algorithms, the host key or the login",
        "somebody has to look: [troubleshooting](troubleshooting.md)",
    ),
    Metric::counter(
        "seeway_connects_failed_total",
        &[MACHINE],
        "Connects that failed, refused ones included",
        "the SSH server can not be reached, or refuses; the log says which",
    ),
    Metric::counter(
        "seeway_channels_prohibited_total",
        &[MACHINE],
        "Channels that the SSH server's policy forbade",
        "it lets the gateway in and forbids the SEEJobs port: have its administrator permit it",
    ),
    Metric::counter(
        "seeway_rekeys_total",
        &[MACHINE],
        "Key exchanges on tunnels that stood already, whoever asked for them",
        "many in a minute hold jobs up: look for `RekeyLimit` in the SSH server's configuration",
    ),
    Metric::gauge(
        "seeway_certificate_expires_timestamp_seconds",
        &[MACHINE],
        "When the certificate expires that the machine is logged in to with; +Inf where there is none, or it never does",
        "a week before: have another one signed, and reload. Tunnels that stand outlive it, the next one is not made",
    ),
    Metric::counter(
        "seeway_late_replies_total",
        &[MACHINE],
        "Replies that nobody waited for any more",
        "callers give up before the machine answers: deadlines are too short, or the machine is too slow",
    ),
];
