//! The Grafana dashboard: well formed, in `PromQL` that Prometheus takes, and with data in every panel while jobs flow through a real
//! gateway that a real Prometheus scrapes. The same Prometheus evaluates the alerts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use seeway_tests::{
    Config, Gateway, Identity, Machine,
    load::Load,
    prometheus::{Prometheus, check_names, documented, named, promtool},
    repository::read,
    turn::Turn,
    wait,
};
use serde_json::Value;
use tempfile::TempDir;

/// What shows nothing in the test's scene, with why.
const WITHOUT_DATA: &[(&str, &str)] = &[
    ("ALERTS", "none fires where all is well"),
    ("seeway_certificate_expires_timestamp_seconds", "the gateway logs in with a plain key"),
];

/// How long until each expression has data: rates need two scrapes, and a debug build beside other work is slow.
const UNTIL_DATA: Duration = Duration::from_secs(90);

/// What Grafana brings along: nothing here needs a plugin.
const KINDS: &[&str] = &["row", "timeseries", "stat", "state-timeline", "table", "bargauge"];

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/seeway.json")).expect("JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Every expression with where it stands, and Grafana's variables replaced as it does it for "All" and a short time.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row") {
        found.extend(list(panel, "targets").iter().map(|target| (text(panel, "title"), text(target, "expr"))));
    }
    for annotation in list(&dashboard["annotations"], "list") {
        found.push((text(annotation, "name"), text(annotation, "expr")));
    }
    let replaced = |expression: &str| {
        let pairs = [
            ("$__rate_interval", "10s"),
            ("$__range", "1h"),
            ("$instance", ".*"),
            ("$world", ".*"),
            ("$machine", ".*"),
        ];
        let replaced =
            pairs.iter().fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
        assert!(!replaced.contains('$'), "a variable is not known: {replaced}");
        replaced
    };
    found.into_iter().map(|(place, expression)| (place.to_owned(), replaced(expression))).collect()
}

#[test]
fn it_is_well_formed_and_each_panel_says_what_it_shows() {
    let dashboard = dashboard();
    assert!(
        dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36),
        "a dashboard of Grafana 10 or later"
    );
    let variables: Vec<&str> =
        list(&dashboard["templating"], "list").iter().map(|variable| text(variable, "name")).collect();
    assert_eq!(variables, ["DS_PROMETHEUS", "instance", "world", "machine"]);
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{title}: its id is another panel's");
        assert!(titles.insert(title), "{title} is there twice");
        assert!(KINDS.contains(&text(panel, "type")), "{title} needs a plugin: {}", panel["type"]);
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("{title} has no {key}"));
        assert!(place("w") > 0 && place("h") > 0 && place("x") + place("w") <= 24, "{title} is within 24 columns");
        for square in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(square), "{title} lies over another panel at {square:?}");
        }
        if text(panel, "type") == "row" {
            continue;
        }
        assert!(text(panel, "description").len() > 20, "{title} has no description");
        assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title} has no unit");
        let mut letters = BTreeSet::new();
        for target in list(panel, "targets") {
            assert_eq!(text(&target["datasource"], "uid"), "${DS_PROMETHEUS}", "{title}");
            assert!(letters.insert(text(target, "refId")), "{title} has two targets of one letter");
        }
        assert!(!letters.is_empty(), "{title} asks for nothing");
    }
}

#[test]
fn every_expression_is_promql_over_metrics_that_there_are() {
    let documented = documented();
    let expressions = expressions(&dashboard());
    assert!(expressions.len() > 60, "they were found: {}", expressions.len());
    for (place, expression) in &expressions {
        check_names(expression, &documented, &BTreeMap::new()).unwrap_or_else(|why| panic!("{place}: {why}"));
    }
    let rule = |(number, (_, expression)): (usize, &(String, String))| {
        let quoted = serde_json::to_string(expression).expect("a string is JSON");
        format!("      - {{record: \"panel:{number}\", expr: {quoted}}}\n")
    };
    let rules: String = expressions.iter().enumerate().map(rule).collect();
    let rules = format!("groups:\n  - name: panels\n    rules:\n{rules}");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let check = |rules: &str| {
        fs::write(folder.path().join("panels.yml"), rules).expect("the temporary folder can be written");
        promtool(&["check", "rules", "panels.yml"], folder.path())
    };
    let (is_content, says) = check(&rules);
    assert!(is_content, "{says}");
    let (is_content, _) = check(&(rules + "      - {record: \"panel:wrong\", expr: \"sum(up\"}\n"));
    assert!(!is_content, "promtool would have said so");
}

#[test]
fn the_runbook_names_panels_and_rows_that_there_are() {
    let dashboard = dashboard();
    let titles = |kind: &str| -> BTreeSet<&str> {
        let of_kind = list(&dashboard, "panels").iter().filter(|panel| (panel["type"] == "row") == (kind == "row"));
        of_kind.map(|panel| text(panel, "title")).collect()
    };
    let page = read("docs/runbook.md");
    let mut count = 0;
    for kind in ["panel", "row"] {
        let titles = titles(kind);
        for part in page.split(&format!("{kind} *")).skip(1) {
            let (title, _) = part.split_once('*').expect("what is slanted ends");
            assert!(titles.contains(title), "docs/runbook.md: the dashboard has no {kind} {title}");
            count += 1;
        }
    }
    assert!(count > 10, "they were found: {count}");
}

/// Whether an expression can show nothing here, since one of its metrics has no data in this scene.
fn shows_nothing(expression: &str) -> bool {
    let is_of =
        |metric: &str, name: &str| metric.strip_prefix(name).is_some_and(|rest| ["", "_bucket"].contains(&rest));
    named(expression).iter().any(|(metric, _)| WITHOUT_DATA.iter().any(|(name, _)| is_of(metric, name)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_while_jobs_flow_and_alerts_fire_when_a_machine_dies() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let mut busy = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    // Keepalives are sent where no jobs flow.
    let quiet = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let config = Config::new()
        .machine("hsm-a", busy.door(), busy.seejobs(), &identity, "")
        .machine("hsm-b", quiet.door(), quiet.seejobs(), &identity, "")
        .world("echo", &["hsm-a"], "")
        .world("quiet", &["hsm-b"], "")
        .line("ssh", "keepalive_idle = \"1s\"")
        .line("ssh", "keepalive = \"1s\"");
    let mut gateway = Gateway::ready(&config);
    let prometheus = Prometheus::start(gateway.admin());

    let load = Load::start(&gateway, "echo");
    let has_data = |expression: &str| prometheus.query(expression).iter().any(|(_, value)| value.is_finite());
    let (nothing, mut empty): (Vec<_>, Vec<_>) =
        expressions(&dashboard()).into_iter().partition(|(_, expression)| shows_nothing(expression));
    let all = empty.len();
    assert!(all > 40, "{all} expressions are to have data");
    let within = Instant::now() + UNTIL_DATA;
    wait::until("every panel has data", 2 * UNTIL_DATA, || {
        empty.retain(|(_, expression)| !has_data(expression));
        assert!(Instant::now() < within, "without data: {empty:?}");
        empty.is_empty().then_some(())
    });
    // Whoever is said to show nothing shows nothing: otherwise the list is out of date.
    for (place, expression) in nothing {
        assert!(!has_data(&expression), "{place} shows something: take {expression} off the lists of those that don't");
    }

    // `increase` sees the first of a kind only where the series was there before it, at 0.
    for outcome in ["unknown_tunnel_lost", "not_sent_queue_full"] {
        let before_any = format!("seeway_jobs_total{{world=\"quiet\",outcome=\"{outcome}\"}} == 0");
        assert!(has_data(&before_any), "a world without jobs shows {before_any}, or alerts miss the first of them");
    }

    let alerts = || list(&prometheus.api("/api/v1/alerts")["data"], "alerts").to_vec();
    wait::until("no alert waits or fires while all is well", wait::BOUND, || alerts().is_empty().then_some(()));
    let groups = prometheus.api("/api/v1/rules");
    let groups = list(&groups["data"], "groups");
    let rules: Vec<&Value> = groups.iter().flat_map(|group| list(group, "rules")).collect();
    assert!(rules.len() > 30, "the rules are loaded: {}", rules.len());
    for rule in rules {
        assert_eq!(text(rule, "health"), "ok", "{rule}");
    }
    assert!(load.finish().await > 0, "jobs have flowed");

    // Within seconds an alert waits for its time to be up; that it then fires is what alerts.test.yml shows.
    let until_alert = |name: &str, key: &str, value: &str| {
        wait::until(&format!("{name} is noticed"), wait::BOUND, || {
            let all = alerts();
            all.iter().any(|alert| alert["labels"]["alertname"] == name && alert["labels"][key] == value).then_some(())
        });
    };
    busy.kill();
    until_alert("SeewayWorldNotReady", "world", "echo");
    until_alert("SeewayMachineDown", "machine", "hsm-a");
    gateway.kill();
    let instance = gateway.admin().to_string();
    until_alert("SeewayGatewayDown", "instance", &instance);
}
