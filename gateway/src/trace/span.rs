//! A job's span, and what OTLP makes of it.
//!
//! Shards make a [`Span`] at a job's end; the exporter turns it into OTLP's own when it is sent. Of a job it has sizes, times and names,
//! and never a byte.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;

use crate::audit::{Actor, MAX_TEXT};
use crate::config::Config;

/// Nanoseconds since 1970.
pub(super) type Nanos = u64;

/// What every job's span is called.
const NAME: &str = "seejob";

/// Which span it is.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    /// The caller's span, in the same trace.
    pub(super) parent: Option<[u8; 8]>,
    pub(super) state: Option<Arc<str>>,
}

/// An attempt after which the job was sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    /// A position in the configuration.
    pub(super) machine: usize,
    pub(super) sent: Nanos,
    pub(super) ended: Nanos,
    pub(super) reason: &'static str,
}

/// A job that has ended.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) ids: Ids,
    pub(super) actor: Arc<Actor>,
    /// When it was admitted, and when it ended.
    pub(super) start: Nanos,
    pub(super) end: Nanos,
    /// When it was sent for the last time, and to which machine, by its position in the configuration.
    pub(super) sent: Option<(usize, Nanos)>,
    /// What was tried before.
    pub(super) earlier: Vec<Lost>,
    /// A position in the configuration.
    pub(super) world: usize,
    pub(super) job_bytes: usize,
    pub(super) reply_bytes: usize,
    /// The outcome's row, or `abandoned`.
    pub(super) outcome: &'static str,
    pub(super) reason: &'static str,
    /// The machine's own status, where it has one.
    pub(super) machine_status: Option<u32>,
    pub(super) may_have_run: bool,
    /// Whether the machine has answered.
    pub(super) is_replied: bool,
    /// Whether whoever looks at traces is to see it as a failure.
    pub(super) is_failure: bool,
}

impl Span {
    /// The same as OTLP has it. Names are those of `config`, in which positions never mean another name.
    pub(super) fn into_otlp(self, config: &Config) -> otlp::Span {
        let machine_name = |machine: usize| config.machines.get(machine).map_or("", |machine| machine.name.as_str());
        let attempts = self.earlier.len() + usize::from(self.sent.is_some());
        let identity = self.actor.identity();
        let mut attributes = vec![
            text("seeway.world", config.worlds.get(self.world).map_or("", |world| world.name.as_str())),
            text("seeway.listener", self.actor.listener()),
            text("seeway.caller", cut(identity.name())),
            text("seeway.caller.by", self.actor.by()),
            text("seeway.outcome", self.outcome),
            flag("seeway.may_have_run", self.may_have_run),
            number("seeway.job.bytes", self.job_bytes as u64),
            number("seeway.reply.bytes", self.reply_bytes as u64),
            number("seeway.attempts", attempts as u64),
        ];
        if let Some((machine, _)) = self.sent {
            attributes.push(text("seeway.machine", machine_name(machine)));
        }
        if let Some(status) = self.machine_status {
            attributes.push(number("seeway.machine.status", status.into()));
        }
        let status = if self.is_failure {
            otlp::Status { code: otlp::status::StatusCode::Error.into(), message: self.reason.to_owned() }
        } else {
            otlp::Status::default()
        };
        let mut events = vec![event(self.start, "queued", Vec::new())];
        for (attempt, lost) in (1..).zip(&self.earlier) {
            events.push(event(lost.sent, "sent", sent(attempt, machine_name(lost.machine))));
            events.push(event(lost.ended, "lost", vec![text("seeway.reason", lost.reason)]));
        }
        if let Some((machine, at)) = self.sent {
            events.push(event(at, "sent", sent(attempts as u64, machine_name(machine))));
        }
        if self.is_replied {
            events.push(event(self.end, "replied", Vec::new()));
        }
        otlp::Span {
            trace_id: self.ids.trace.to_vec(),
            span_id: self.ids.span.to_vec(),
            parent_span_id: self.ids.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            trace_state: self.ids.state.as_deref().unwrap_or_default().to_owned(),
            flags: flags(&self.ids),
            name: NAME.to_owned(),
            kind: otlp::span::SpanKind::Server.into(),
            start_time_unix_nano: self.start,
            end_time_unix_nano: self.end,
            attributes,
            events,
            status: Some(status),
            ..otlp::Span::default()
        }
    }
}

/// Sampled; and, where there is a parent, that it is known to be another process's.
fn flags(ids: &Ids) -> u32 {
    const SAMPLED: u32 = 1;
    let remote = if ids.parent.is_some() {
        otlp::SpanFlags::ContextHasIsRemoteMask as u32 | otlp::SpanFlags::ContextIsRemoteMask as u32
    } else {
        otlp::SpanFlags::ContextHasIsRemoteMask as u32
    };
    SAMPLED | remote
}

fn sent(attempt: u64, machine: &str) -> Vec<KeyValue> {
    vec![text("seeway.machine", machine), number("seeway.attempt", attempt)]
}

fn event(at: Nanos, name: &str, attributes: Vec<KeyValue>) -> otlp::span::Event {
    otlp::span::Event { time_unix_nano: at, name: name.to_owned(), attributes, dropped_attributes_count: 0 }
}

/// An attribute with a text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, any_value::Value::BoolValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What of a name that somebody else has chosen is told, as in the audit log.
pub(super) fn cut(name: &str) -> &str {
    let end = (0..=MAX_TEXT.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    &name[..end]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::access::{Identity, Means};
    use crate::audit::ListenerKind;

    /// One that begins at `start`.
    pub(in crate::trace) fn span(start: Nanos) -> Span {
        let identity = Identity::new("spiffe://bank/payments", Vec::new(), Means::Certificate);
        Span {
            ids: Ids { trace: [1; 16], span: [2; 8], parent: Some([3; 8]), state: Some("a=1".into()) },
            actor: Arc::new(Actor::new(identity, ListenerKind::Grpc, None)),
            start,
            end: start + 900,
            sent: Some((1, start + 400)),
            earlier: Vec::new(),
            world: 0,
            job_bytes: 32,
            reply_bytes: 64,
            outcome: "replied",
            reason: "",
            machine_status: None,
            may_have_run: true,
            is_replied: true,
            is_failure: false,
        }
    }

    #[test]
    fn a_name_is_cut_where_the_audit_log_cuts_it_and_never_within_a_character() {
        assert_eq!(cut("payments"), "payments");
        assert_eq!(cut(&"n".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
        assert_eq!(cut(&format!("{}é", "n".repeat(MAX_TEXT - 1))).len(), MAX_TEXT - 1);
    }

    #[test]
    fn whether_a_parent_is_another_processs_is_said() {
        assert_eq!(flags(&span(0).ids), 0x301);
        assert_eq!(flags(&Ids { parent: None, ..span(0).ids }), 0x101);
    }
}
