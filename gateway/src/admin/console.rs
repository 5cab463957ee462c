//! The console in the browser: files that are part of the program, and what keeps a browser from doing anything else with them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;

/// A page, or what it is made of: its path, its kind, and what is in it.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("console/index.html")),
    ("/console/style.css", "text/css; charset=utf-8", include_str!("console/style.css")),
    ("/console/app.js", SCRIPT, include_str!("console/app.js")),
    ("/console/dom.js", SCRIPT, include_str!("console/dom.js")),
    ("/console/plot.js", SCRIPT, include_str!("console/plot.js")),
    ("/console/change.js", SCRIPT, include_str!("console/change.js")),
    ("/console/overview.js", SCRIPT, include_str!("console/overview.js")),
    ("/console/machine.js", SCRIPT, include_str!("console/machine.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page may do: run and show its own files, and ask this gateway.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
);

/// One of the console's files.
pub(super) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, kind, text) = FILES.iter().find(|(name, ..)| *name == path)?;
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    harden(headers);
    Some(response)
}

/// What every answer has that a browser may show: it is what it says, tells nobody where it was, and is not kept.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a browser has to be sent before it shows anything.
    const MOST_BYTES: usize = 60_000;

    #[test]
    fn it_is_small_and_asks_nobody_else() {
        let size: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        assert!(size < MOST_BYTES, "{size} bytes");
        for (name, _, text) in FILES {
            // Names of XML's kinds are no addresses that anybody asks.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for bad in
                ["http://", "https://", "//cdn", "@import", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("]
            {
                assert!(!text.contains(bad), "{name} has {bad}");
            }
        }
    }

    #[test]
    fn each_file_that_a_file_names_is_there() {
        let has = |path: &str| file(path).is_some();
        let (_, _, page) = FILES[0];
        let named: Vec<_> = page.split('"').filter(|word| word.starts_with("console/")).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        for name in named {
            assert!(has(&format!("/{name}")), "{name}");
        }
        let mut imports = 0;
        for (name, _, text) in FILES {
            for line in text.lines().filter(|line| line.starts_with("import ")) {
                let from = line.split("\"./").nth(1).and_then(|rest| rest.split('"').next());
                let from = from.unwrap_or_else(|| panic!("{name}: {line}"));
                assert!(has(&format!("/console/{from}")), "{name} imports {from}");
                imports += 1;
            }
        }
        assert!(imports > 0);
    }
}
