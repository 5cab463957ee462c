//! A gateway's state for the tests of `top`: two machines, one of them down, a world, a caller and two limits.

use serde_json::{Value, json};

/// The state at a moment.
pub(super) fn state(time: f64) -> Value {
    let took = json!({ "p50": 0.002, "p99": 0.004, "p999": 0.009, "jobs": 100 });
    let machine = |name: &str, state: &str, trouble: Value| {
        json!({
            "name": name, "address": "127.0.0.1:22", "worlds": ["signer"], "state": state, "states": { state: 1 },
            "draining": false, "trouble": trouble, "happenings": 1, "in_flight": 3, "max_in_flight": 64, "channels": 2,
            "tunnels": { "ready": 2, "backing_off": 1 }, "tunnels_made": 2, "connects_failed": 1, "tunnels_refused": 0,
            "channels_prohibited": 0, "rekeys": 0, "ejections": 0, "late_replies": 0, "jobs_per_second": 500.0,
            "machine_seconds": took, "keepalive_seconds": null,
        })
    };
    let trouble = json!({ "time": 1.0, "shard": 0, "what": "connect_failed", "text": "Connection refused" });
    json!({
        "may_change": true, "why_not": null, "version": "0.1.0", "time": time, "interval": 1.0, "ready": true,
        "reasons": [], "draining": false, "shards": 1,
        "jobs": {
            "in_hand": 5, "queued": 2, "in_flight": 3, "per_second": 1000.0, "failed_per_second": 0.0, "seconds": took,
            "machine_seconds": took,
        },
        "worlds": [{
            "name": "signer", "ready": true, "reason": null, "machines": ["hsm-a", "hsm-b"], "queued": 2,
            "queue_bytes": 128, "jobs_per_second": 1000.0, "failed_per_second": 0.0, "outcomes": {}, "retries": 0,
            "retries_refused": 0, "job_bytes": 0, "reply_bytes": 0, "seconds": took, "queue_seconds": null,
        }],
        "machines": [machine("hsm-a", "ready", Value::Null), machine("hsm-b", "down", trouble)],
        "callers": {
            "hardserver": 1, "grpc": 0, "hardserver_paused": 0, "grpc_paused": 0,
            "busiest": [{
                "who": "payments", "by": "certificate", "listener": "grpc", "from": "127.0.0.1:4000", "jobs": 5,
                "queued": 2, "bytes": 128, "jobs_per_second": 1000.0,
            }],
        },
        "limits": [
            { "limit": "callers", "of": null, "used": 1, "max": 1000, "ratio": 0.001 },
            { "limit": "queue", "of": "signer", "used": 95, "max": 100, "ratio": 0.95 },
        ],
        "process": {
            "pid": 4711, "started": 1.0, "uptime": 3700.0, "cpu_seconds": 1.0, "resident_bytes": 30_000_000,
            "threads": 4, "open_files": 30, "max_open_files": 1024,
        },
    })
}
