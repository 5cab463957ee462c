//! Real Prometheus: its `promtool`, a server that scrapes a gateway, and what `PromQL` of ours names. For the tests of alerts and dashboard.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ports,
    process::Process,
    repository::{read, root},
    wait,
};

/// What Prometheus itself has, with the labels besides those of the scrape.
const OF_PROMETHEUS: &[(&str, &[&str])] = &[("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity"])];

/// The gateway's metrics, and Prometheus's own: each name with its labels, `le` of a histogram's buckets among them. From the tables of the page that a test
/// of the gateway compares with the gateway.
pub fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    let mut add = |name: &str, kind: &str, labels: BTreeSet<String>| match kind {
        "histogram" => {
            let mut with_bound = labels.clone();
            with_bound.insert("le".to_owned());
            metrics.insert(format!("{name}_bucket"), with_bound);
            metrics.insert(format!("{name}_sum"), labels.clone());
            metrics.insert(format!("{name}_count"), labels);
        }
        _ => drop(metrics.insert(name.to_owned(), labels)),
    };
    for row in read("docs/metrics.md").lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind @ ("gauge" | "counter" | "histogram"), _unit, labels, ..] = cells[..] else { continue };
        add(name.trim_matches('`'), kind, labels.split('`').skip(1).step_by(2).map(str::to_owned).collect());
    }
    for (name, labels) in OF_PROMETHEUS {
        add(name, "gauge", labels.iter().map(|label| (*label).to_owned()).collect());
    }
    metrics
}

/// Names of metrics and recorded series in an expression, each with the labels that it is asked for by.
pub fn named(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let bare = without_strings(expression);
    let mut found = Vec::new();
    let mut rest = bare.as_str();
    while let Some(at) = rest.find(is_part) {
        let word: String = rest[at..].chars().take_while(|letter| is_part(*letter)).collect();
        rest = &rest[at + word.len()..];
        let is_metric = OF_PROMETHEUS.iter().any(|(name, _)| *name == word)
            || word.contains(':')
            || word.starts_with("seeway_")
            || word.starts_with("process_");
        if !is_metric {
            continue;
        }
        let mut labels = BTreeSet::new();
        if let Some((inner, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            labels.extend(inner.split(',').map(|matcher| matcher.trim_end_matches(['=', '~', '!']).trim().to_owned()));
            rest = after;
        }
        found.push((word, labels));
    }
    found
}

/// The labels by which an expression sums or matches.
pub fn grouped_by(expression: &str) -> BTreeSet<String> {
    let bare = without_strings(expression);
    let mut found = BTreeSet::new();
    for word in ["by", "on", "without", "ignoring", "group_left", "group_right"] {
        for (at, _) in bare.match_indices(word) {
            let is_whole = !bare[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
            let list = bare[at + word.len()..].trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'));
            if let (true, Some((list, _))) = (is_whole, list) {
                found.extend(list.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()));
            }
        }
    }
    found
}

/// The expression with nothing between its quotes.
fn without_strings(expression: &str) -> String {
    expression.split('"').step_by(2).collect()
}

/// Whether an expression names only metrics that there are, with labels that they have. `recorded` are the rules' own series.
pub fn check_names(
    expression: &str,
    documented: &BTreeMap<String, BTreeSet<String>>,
    recorded: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), String> {
    let of_scrapes: BTreeSet<String> = ["job", "instance"].map(str::to_owned).into();
    let mut all = of_scrapes.clone();
    let metrics = named(expression);
    if metrics.is_empty() {
        return Err(format!("`{expression}` names no metric"));
    }
    for (name, labels) in metrics {
        let known = documented.get(&name).or_else(|| recorded.get(&name));
        let known = known.ok_or_else(|| format!("`{expression}` names {name}, which is no metric of the gateway"))?;
        all.extend(known.iter().cloned());
        if let Some(label) = labels.iter().find(|label| !known.contains(*label) && !of_scrapes.contains(*label)) {
            return Err(format!("`{expression}` asks {name} for a label {label} that it does not have"));
        }
    }
    match grouped_by(expression).difference(&all).next() {
        Some(label) => Err(format!("`{expression}` groups by {label}, which none of its metrics has")),
        None => Ok(()),
    }
}

/// What `promtool` says, with whether it is content.
pub fn promtool(arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; install Debian's package prometheus"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// A Prometheus server that scrapes one gateway, with the repository's configuration and rules.
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one and waits until it answers. It runs with deploy/prometheus/prometheus.yml, but scrapes once a second, and `gateway`.
    pub fn start(gateway: SocketAddr) -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let configuration = read("deploy/prometheus/prometheus.yml")
            .replace("scrape_interval: 5s", "scrape_interval: 1s")
            .replace("evaluation_interval: 5s", "evaluation_interval: 1s")
            .replace("127.0.0.1:9464", &gateway.to_string());
        assert!(configuration.contains("scrape_interval: 1s") && configuration.contains(&gateway.to_string()));
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration).expect("the temporary folder can be written");
        for rules in ["alerts.yml", "rules.yml"] {
            let from: PathBuf = root().join("deploy/prometheus").join(rules);
            fs::copy(&from, folder.path().join(rules)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free(Ipv4Addr::LOCALHOST.into())));
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let prometheus = Self { process: Process::start("Prometheus", &mut command), address, _folder: folder };
        wait::until("Prometheus answers", wait::BOUND, || (prometheus.get("/-/ready").0 == 200).then_some(()));
        prometheus
    }

    /// What an expression gives now: each series with its value.
    pub fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = self.api(&format!("/api/v1/query?query={}", percent_encoded(expression)));
        let samples = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}"));
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        samples.iter().filter_map(|sample| Some((sample["metric"].clone(), value(sample)?))).collect()
    }

    /// An answer of its API.
    pub fn api(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "Prometheus says to {path}: {body}\n{}", self.process.tail(20));
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("Prometheus says to {path}: {body}: {error}"))
    }

    /// HTTP/1.0, so that the answer's body comes in one piece.
    fn get(&self, path: &str) -> (u16, String) {
        let mut answer = String::new();
        let asked = TcpStream::connect(self.address).and_then(|mut stream| {
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
            stream.read_to_string(&mut answer)
        });
        let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (asked.ok().and(status).unwrap_or(0), body.to_owned())
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn finds_what_an_expression_names() {
        let expression =
            r#"sum by (world, le) (rate(seeway_a_bucket{world=~"x,}", outcome!="y"}[5m])) / on (world) a:b:c > up"#;
        let expected = [("seeway_a_bucket", set(&["world", "outcome"])), ("a:b:c", set(&[])), ("up", set(&[]))];
        assert_eq!(named(expression), expected.map(|(name, labels)| (name.to_owned(), labels)));
        assert_eq!(grouped_by(expression), set(&["world", "le"]));
    }

    #[test]
    fn refuses_names_and_labels_that_are_none() {
        let documented = BTreeMap::from([("seeway_a".to_owned(), set(&["world"]))]);
        let check = |expression: &str| check_names(expression, &documented, &BTreeMap::new());
        check(r#"sum by (world, instance) (seeway_a{job="x", world="y"})"#).expect("all of it is there");
        for (wrong, why) in [
            ("vector(1)", "names no metric"),
            ("seeway_b", "no metric of the gateway"),
            (r#"seeway_a{machine="x"}"#, "a label machine"),
            ("sum by (machine) (seeway_a)", "groups by machine"),
        ] {
            assert!(check(wrong).expect_err(wrong).contains(why), "{wrong}");
        }
    }

    #[test]
    fn the_page_is_understood() {
        let metrics = documented();
        assert!(metrics.len() > 40, "{metrics:?}");
        assert_eq!(metrics["seeway_machine_seconds_bucket"], set(&["machine", "le"]));
        assert_eq!(metrics["seeway_tunnels"], set(&["machine", "state"]));
    }
}
