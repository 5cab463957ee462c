//! W3C trace context: which trace a call belongs to, as its caller says in `traceparent` and `tracestate`.
//!
//! Called by the gRPC front end, only where spans are made at all. What can not be read is passed over, as the recommendation wants it:
//! the job begins a trace of its own then.

use std::sync::Arc;

use http::HeaderMap;

/// The longest `tracestate` that is kept, in bytes. The recommendation has everybody keep so many; a longer one is left out.
const STATE_LIMIT: usize = 512;

/// The most entries that a `tracestate` may have.
const STATE_ENTRIES: usize = 32;

/// Where a caller's own span stands in its trace. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub(super) trace: [u8; 16],
    /// The caller's span.
    pub(super) parent: [u8; 8],
    /// Whether the caller records its own span, and wants those of others.
    pub(super) is_sampled: bool,
    /// What tracing systems have noted for each other. Handed on, never looked at.
    pub(super) state: Option<Arc<str>>,
}

impl Context {
    /// Reads a call's headers; `None` where they name no trace, or none that can be read.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all("traceparent").iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let mut context = Self::parse(parent.as_bytes())?;
        context.state = state(headers);
        Some(context)
    }

    /// Reads `00-TRACE-PARENT-FLAGS`. Of a later version what is known is read, and nothing that may follow.
    fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(55)?;
        let mut parts = head.split(|byte| *byte == b'-');
        let [version] = digits::<1>(parts.next()?)?;
        let trace = digits::<16>(parts.next()?)?;
        let parent = digits::<8>(parts.next()?)?;
        let [flags] = digits::<1>(parts.next()?)?;
        let ends_well = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.first() == Some(&b'-'),
        };
        let is_one = ends_well && parts.next().is_none() && trace != [0; 16] && parent != [0; 8];
        is_one.then_some(Self { trace, parent, is_sampled: flags & 1 == 1, state: None })
    }
}

/// Bytes written as lower-case hexadecimal digits, which is how `traceparent` has to be written.
fn digits<const COUNT: usize>(text: &[u8]) -> Option<[u8; COUNT]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * COUNT {
        return None;
    }
    let mut bytes = [0; COUNT];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The `tracestate` headers as one list; `None` where there is none, or one that is too long or no text.
fn state(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut all = String::new();
    for value in headers.get_all("tracestate") {
        let value = value.to_str().ok()?.trim();
        if value.is_empty() {
            continue;
        }
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(value);
        if all.len() > STATE_LIMIT {
            return None;
        }
    }
    (!all.is_empty() && all.split(',').count() <= STATE_ENTRIES).then(|| all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn what_the_recommendation_gives_as_an_example_is_read() {
        let text = format!("00-{TRACE}-b7ad6b7169203331-01");
        let found = Context::of(&headers(&[("traceparent", &text)])).expect("a context");
        assert_eq!(found.trace[..4], [0x0a, 0xf7, 0x65, 0x19]);
        assert_eq!(found.parent, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(found.is_sampled && found.state.is_none());
        let unsampled = format!("00-{TRACE}-b7ad6b7169203331-02");
        assert!(!Context::of(&headers(&[("traceparent", &unsampled)])).expect("a context").is_sampled);
        for later in ["cc-TRACE-b7ad6b7169203331-01", "cc-TRACE-b7ad6b7169203331-01-what-comes-some-day"] {
            let later = later.replace("TRACE", TRACE);
            assert!(Context::of(&headers(&[("traceparent", &later)])).is_some(), "{later}");
        }
    }

    #[test]
    fn what_is_no_context_is_none() {
        for text in [
            "",
            "00",
            "00-TRACE-b7ad6b7169203331",
            "00-TRACE-b7ad6b7169203331-0",
            "00-TRACE-b7ad6b7169203331-01-more",
            "00-TRACE-b7ad6b7169203331-01.",
            "cc-TRACE-b7ad6b7169203331-01.",
            "ff-TRACE-b7ad6b7169203331-01",
            "00-TRACE-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-TRACE-b7ad6b716920333g-01",
            "00-TRACE-b7ad6b716920-3331-01",
        ] {
            let text = text.replace("TRACE", TRACE);
            assert_eq!(Context::of(&headers(&[("traceparent", &text)])), None, "{text}");
        }
        let text = format!("00-{TRACE}-b7ad6b7169203331-01");
        assert_eq!(Context::of(&headers(&[("traceparent", &text), ("traceparent", &text)])), None, "which of them?");
        assert_eq!(Context::of(&headers(&[("tracestate", "a=1")])), None);
    }

    #[test]
    fn a_state_is_one_list_of_all_headers_or_left_out() {
        let text = format!("00-{TRACE}-b7ad6b7169203331-01");
        let with = |states: &[&str]| {
            let mut lines = vec![("traceparent", text.as_str())];
            lines.extend(states.iter().map(|state| ("tracestate", *state)));
            Context::of(&headers(&lines)).expect("a context").state
        };
        assert_eq!(with(&["a=1, b=2", "", "c=3"]).as_deref(), Some("a=1, b=2,c=3"));
        assert_eq!(with(&[]), None);
        let at_limit = format!("a={}", "x".repeat(STATE_LIMIT - 2));
        assert_eq!(with(&[&at_limit]).as_deref(), Some(at_limit.as_str()));
        assert_eq!(with(&[&format!("{at_limit}x")]), None);
        assert_eq!(with(&[&vec!["a=1"; STATE_ENTRIES + 1].join(",")]), None);
    }
}
