//! `/log` at the admin port: which log lines are shown, and another filter for them.
//!
//! `GET /log` says it. `POST /log?filter=seeway=debug` changes it, with `&for=10m` for a time; without a filter, what the gateway was started
//! with comes back. Whoever may change anything was asked before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming as Body;
use serde_json::json;

use super::Control;
use super::answer::{json, text, unescaped};
use crate::audit::{Actor, Event};
use crate::config::{duration_text, parse_duration};
use crate::log_filter::{FILTER_LIMIT, FilterError, LogFilter, Shown};

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// `None`: what the gateway was started with.
    filter: Option<String>,
    lasts: Option<Duration>,
}

/// Says what is shown.
pub(super) fn show() -> Response<Full<Bytes>> {
    match LogFilter::of_process() {
        Some(filter) => json(StatusCode::OK, &told(&filter.shown())),
        None => text(StatusCode::NOT_FOUND, format!("{}\n", not_logged())),
    }
}

/// Has something else shown, and records who wanted it.
pub(super) fn change(request: &Request<Body>, control: &Control, by: &Arc<Actor>) -> Response<Full<Bytes>> {
    let wanted = match wanted(request.uri().query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let changed = match LogFilter::of_process() {
        Some(filter) => filter.set(wanted.filter.as_deref(), wanted.lasts),
        None => Err(not_logged()),
    };
    if let Some(audit) = control.audit() {
        let mut event = Event::new("log").by(by);
        if let Some(filter) = &wanted.filter {
            event = event.text("filter", filter);
        }
        if let Some(lasts) = wanted.lasts {
            event = event.number("seconds", lasts.as_secs());
        }
        audit.event(match &changed {
            Ok(_) => event.text("result", "ok"),
            Err(why) => event.text("result", "refused").text("why", &why.to_string()),
        });
    }
    match changed {
        Ok(shown) => {
            // At a level that few filters leave out.
            let lasts = shown.then.as_ref().map(|_| wanted.lasts.unwrap_or_default());
            tracing::warn!(who = %by.identity(), filter = shown.filter, ?lasts, "the log shows something else from now on");
            json(StatusCode::OK, &told(&shown))
        }
        Err(why @ FilterError::Fixed(_)) => text(StatusCode::CONFLICT, format!("{why}\n")),
        Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn not_logged() -> FilterError {
    FilterError::Fixed("it logs nothing".to_owned())
}

fn told(shown: &Shown) -> serde_json::Value {
    match &shown.then {
        None => json!({ "filter": shown.filter }),
        Some((left, then)) => {
            // Whole seconds, and the last one until it is over.
            let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
            json!({ "filter": shown.filter, "for": duration_text(left), "then": then })
        }
    }
}

/// Reads `filter=…&for=…`.
fn wanted(query: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescaped(value).filter(|value| value.len() <= FILTER_LIMIT + 1);
        let value = value.ok_or_else(|| format!("{key} is no text, or has more than {FILTER_LIMIT} bytes\n"))?;
        let is_new = match key {
            "filter" if value.trim().is_empty() => return Err("name a filter, or leave `filter` out\n".to_owned()),
            "filter" => wanted.filter.replace(value).is_none(),
            "for" => {
                let lasts = parse_duration(&value).map_err(|error| format!("for={value}: {error}\n"))?;
                wanted.lasts.replace(lasts).is_none()
            }
            _ => return Err("the parameters are ?filter=FILTER and &for=DURATION\n".to_owned()),
        };
        if !is_new {
            return Err(format!("{key} is there twice\n"));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        let wanted_of = |filter: Option<&str>, lasts| Ok(Wanted { filter: filter.map(str::to_owned), lasts });
        assert_eq!(wanted(""), wanted_of(None, None));
        assert_eq!(wanted("filter=debug"), wanted_of(Some("debug"), None));
        assert_eq!(
            wanted("filter=seeway::upstream=debug,info&for=10m"),
            wanted_of(Some("seeway::upstream=debug,info"), minutes(10))
        );
        assert_eq!(wanted("for=1m&filter=seeway%3Dtrace"), wanted_of(Some("seeway=trace"), minutes(1)));
        for query in
            ["filter=", "filter", "for=soon", "for=", "level=debug", "filter=a&filter=b", "for=1m&for=2m", "filter=%zz"]
        {
            assert!(wanted(query).is_err(), "{query}");
        }
        assert!(wanted(&format!("filter={}", "a".repeat(FILTER_LIMIT + 2))).is_err());
    }

    #[test]
    fn what_is_for_a_time_says_for_how_long_still() {
        let shown = |then| Shown { filter: "debug".into(), then };
        assert_eq!(told(&shown(None)), json!({ "filter": "debug" }));
        let left = Duration::from_millis(61_001);
        assert_eq!(
            told(&shown(Some((left, "info".into())))),
            json!({ "filter": "debug", "for": "62s", "then": "info" })
        );
    }
}
