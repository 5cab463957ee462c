//! The alert rules, by Prometheus's own tools: each fires when it should and is silent when not, is in the runbook, and names metrics
//! that there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use seeway_tests::prometheus::{check_names, documented, grouped_by, promtool};
use seeway_tests::repository::{read, root};
use tempfile::TempDir;

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const RULES: &str = "deploy/prometheus/rules.yml";
const CASES: &str = "deploy/prometheus/alerts.test.yml";

/// Each rule's name with the lines below it, up to the next rule.
fn rules(file: &str, kind: &str) -> BTreeMap<String, String> {
    let text = read(file);
    let mut found = BTreeMap::new();
    for part in text.split(&format!("- {kind}: ")).skip(1) {
        let (name, rest) = part.split_once('\n').expect("a rule has lines below its name");
        assert!(found.insert(name.to_owned(), rest.to_owned()).is_none(), "{file}: {name} is there twice");
    }
    assert!(!found.is_empty(), "{file} was understood");
    found
}

/// The expression in a rule's lines, on one line or in a block.
fn expression(lines: &str) -> String {
    let (_, rest) = lines.split_once("expr: ").expect("a rule has an expression");
    let (first, below) = rest.split_once('\n').unwrap_or((rest, ""));
    if first != "|-" {
        return first.to_owned();
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = indent(below);
    below.lines().take_while(|line| indent(line) >= depth).map(str::trim).collect::<Vec<_>>().join(" ")
}

fn recorded() -> BTreeMap<String, BTreeSet<String>> {
    rules(RULES, "record").into_iter().map(|(name, lines)| (name, grouped_by(&expression(&lines)))).collect()
}

#[test]
fn promtool_takes_the_rules_and_every_case_comes_out_as_it_says() {
    for arguments in [["check", "rules", ALERTS], ["check", "rules", RULES], ["test", "rules", CASES]] {
        let (is_content, says) = promtool(&arguments, root());
        assert!(is_content, "promtool {arguments:?}:\n{says}");
    }
}

/// The alerts for which a case of `alerts.test.yml` notices when each rule's expression is this one. `was_to_fire` says which
/// cases are looked at: those in which the alert was to fire, or those in which it was to be silent.
fn noticed(every_expression: &str, was_to_fire: bool) -> BTreeSet<String> {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it can be written");
    let names = rules(ALERTS, "alert").into_keys();
    let rules: Vec<String> = names.map(|name| format!("      - {{alert: {name}, expr: {every_expression}}}")).collect();
    write("alerts.yml", &format!("groups:\n  - name: all\n    rules:\n{}\n", rules.join("\n")));
    write("rules.yml", &read(RULES));
    write("alerts.test.yml", &read(CASES));
    let (is_content, says) = promtool(&["test", "rules", "alerts.test.yml"], folder.path());
    assert!(!is_content, "every rule is {every_expression}, and promtool notices nothing:\n{says}");
    // For each case that came out otherwise: `alertname: NAME, time: …`, `exp:[…]`, `got:[…]`.
    let failed = says.split("alertname: ").skip(1).filter_map(|part| {
        let (name, rest) = part.split_once(',')?;
        let (_, expected) = rest.split_once("exp:[")?;
        let fires = !expected.trim_start().starts_with(']');
        (fires == was_to_fire).then(|| name.to_owned())
    });
    failed.collect()
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() {
    let alerts: BTreeSet<String> = rules(ALERTS, "alert").into_keys().collect();
    assert_eq!(noticed("vector(0) == 1", true), alerts, "these have a case that notices when the alert never fires");
    assert_eq!(noticed("vector(1)", false), alerts, "these have a case that notices when the alert always fires");
}

#[test]
fn each_alert_says_what_it_has_to() {
    for (name, lines) in rules(ALERTS, "alert") {
        let of = |key: &str| {
            let (_, value) = lines.split_once(&format!("{key}: ")).unwrap_or_else(|| panic!("{name} has no {key}"));
            value.lines().next().unwrap_or_default().trim_matches('"').to_owned()
        };
        assert!(name.starts_with("Seeway"), "{name}");
        assert!(
            ["{severity: page}", "{severity: ticket}"].contains(&of("labels").as_str()),
            "{name}: {}",
            of("labels")
        );
        assert_eq!(of("runbook_url"), format!("docs/runbook.md#{}", name.to_lowercase()));
        let (summary, description) = (of("summary"), of("description"));
        assert!(summary.len() > 20 && !summary.ends_with('.'), "{name}: {summary}");
        assert!(description.len() > 60 && description.ends_with('.'), "{name}: {description}");
        if !lines.contains("absent(") {
            assert!(summary.starts_with("{{ $labels.instance }}: "), "{name} says where: {summary}");
        }
    }
}

#[test]
fn the_runbook_has_each_alert_and_no_other() {
    let page = read("docs/runbook.md");
    let entries: Vec<&str> = page.split("\n### ").skip(1).collect();
    let names: Vec<String> = entries.iter().map(|entry| entry.lines().next().unwrap_or_default().to_owned()).collect();
    let unique: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "none is there twice");
    assert_eq!(unique, rules(ALERTS, "alert").into_keys().collect());
    for (name, entry) in names.iter().zip(entries) {
        for part in ["**Means**", "**Look**", "**Do**", "**Over**"] {
            assert_eq!(entry.matches(part).count(), 1, "{name} has {part} once");
        }
    }
}

#[test]
fn rules_and_alerts_name_metrics_and_labels_that_there_are() {
    let (documented, recorded) = (documented(), recorded());
    let all = [(RULES, "record"), (ALERTS, "alert")].map(|(file, kind)| rules(file, kind));
    for (name, lines) in all.into_iter().flatten() {
        check_names(&expression(&lines), &documented, &recorded).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}
