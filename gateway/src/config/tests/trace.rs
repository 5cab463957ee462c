//! `[trace]`.

use super::*;

fn trace(lines: &str) -> String {
    format!("{}[trace]\n{lines}", good())
}

#[test]
fn spans_are_made_where_there_is_an_endpoint() {
    let site = Site::new();
    assert_eq!(site.read(&good()).expect("no problems").trace, None);
    let found = |lines: &str| {
        let config = site.read(&trace(lines)).unwrap_or_else(|problems| panic!("{lines}: {problems}"));
        config.trace.expect("spans are made")
    };
    let usual = found("endpoint = \"http://localhost\"\n");
    assert_eq!(usual.endpoint.to_string(), "http://127.0.0.1:4317", "a name may lead elsewhere");
    assert!((usual.ratio - 0.01).abs() < 1e-12);
    assert_eq!((usual.service_name.as_str(), usual.queue), ("seeway", 8192));
    assert_eq!((usual.timeout, usual.interval), (Duration::from_secs(10), Duration::from_secs(1)));
    for (endpoint, wanted) in [
        ("http://127.0.0.1:7", "http://127.0.0.1:7"),
        ("http://[::1]:7/", "http://[::1]:7"),
        ("https://collector.example", "https://collector.example:4317"),
        ("https://10.0.0.7:443", "https://10.0.0.7:443"),
    ] {
        assert_eq!(found(&format!("endpoint = \"{endpoint}\"\n")).endpoint.to_string(), wanted);
    }
    site.write("ca.pem", "", 0o644);
    site.write("header", "Bearer x", 0o600);
    let tls = found("endpoint = \"https://c\"\nca = \"ca.pem\"\nauthorization = \"header\"\nsample_ratio = \"1\"\n");
    assert_eq!((tls.ca, tls.authorization), (Some(site.path("ca.pem")), Some(site.path("header"))));
    assert!((tls.ratio - 1.0).abs() < 1e-12);
}

#[test]
fn what_is_wrong_with_a_trace_table_is_said() {
    let site = Site::new();
    site.write("header", "Bearer x", 0o640);
    site.write("ca.pem", "", 0o644);
    let here = "endpoint = \"http://127.0.0.1:4317\"\n";
    let there = "endpoint = \"https://collector.example\"\n";
    for (lines, begins, contains) in [
        ("sample_ratio = \"1\"\n".to_owned(), "22: trace.endpoint: ", "sample_ratio is there"),
        ("endpoint = \"collector:4317\"\n".to_owned(), "22: trace.endpoint: ", "is not an address"),
        ("endpoint = \"grpc://c:4317\"\n".to_owned(), "22: trace.endpoint: ", "is not an address"),
        ("endpoint = \"https://c:0\"\n".to_owned(), "22: trace.endpoint: ", "is not an address"),
        ("endpoint = \"https://me:pw@c\"\n".to_owned(), "22: trace.endpoint: ", "user or password"),
        ("endpoint = \"https://c/v1/traces\"\n".to_owned(), "22: trace.endpoint: ", "has a path"),
        ("endpoint = \"http://collector.example\"\n".to_owned(), "22: trace.endpoint: ", "not encrypted"),
        (format!("{here}sample_ratio = \"1.5\"\n"), "23: trace.sample_ratio: ", "is no part"),
        (format!("{here}sample_ratio = \"NaN\"\n"), "23: trace.sample_ratio: ", "is no part"),
        (format!("{here}sample_ratio = \"-0\"\n"), "23: trace.sample_ratio: ", "is no part"),
        (format!("{here}service_name = \"\"\n"), "23: trace.service_name: ", "is empty"),
        (format!("{here}ca = \"ca.pem\"\n"), "23: trace.ca: ", "no TLS is spoken"),
        (format!("{there}ca = \"gone.pem\"\n"), "23: trace.ca: ", "is not there"),
        (
            format!("{there}authorization = \"header\"\n"),
            "23: trace.authorization: ",
            "can be read or written by others",
        ),
        (format!("{here}timeout = \"61s\"\n"), "23: trace.timeout: ", "longer than 60s"),
        (format!("{here}queue = 0\n"), "23: trace.queue: ", "below 1"),
    ] {
        let problem = site.problem(&trace(&lines));
        assert!(problem.starts_with(begins) && problem.contains(contains), "{lines}\n{problem}");
        assert!(!problem.contains("Bearer"), "{problem}");
    }
}

#[test]
fn the_collectors_port_has_to_be_among_those_that_may_be_connected_to() {
    let site = Site::new();
    let text = |ports: &str| {
        format!("{}[process]\nconnect_ports = [{ports}]\n", trace("endpoint = \"https://collector.example:4319\"\n"))
    };
    let problem = site.problem(&text("\"22\", \"2222\""));
    assert!(problem.contains("lacks the port 4319"), "{problem}");
    assert!(site.read(&text("\"22\", \"2222\", \"4319\"")).is_ok());
}

#[test]
fn a_reload_takes_another_ratio_and_nothing_else() {
    let site = Site::new();
    let file = site.path("seeway.toml");
    let text = trace("endpoint = \"http://127.0.0.1:4317\"\nsample_ratio = \"0\"\n");
    let running = site.read(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let new = running.read_again(&text.replace("\"0\"", "\"0.5\""), &file, []);
    let ratio = new.unwrap_or_else(|problems| panic!("{problems}")).trace.map(|trace| trace.ratio);
    assert!(ratio.is_some_and(|ratio| (ratio - 0.5).abs() < 1e-12));
    for (further, key) in [
        ("service_name = \"other\"\n", "trace.service_name"),
        ("timeout = \"1s\"\n", "trace.timeout"),
        ("interval = \"2s\"\n", "trace.interval"),
        ("queue = 7\n", "trace.queue"),
    ] {
        let problems = running.read_again(&format!("{text}{further}"), &file, []).expect_err(key);
        assert!(problems.need_restart() && problems.list[0].key == key, "{problems}");
    }
    for text in [good(), text.replace("4317", "4318")] {
        let problems = running.read_again(&text, &file, []).expect_err("the endpoint");
        assert!(problems.need_restart() && problems.list[0].key == "trace.endpoint", "{problems}");
    }
}
