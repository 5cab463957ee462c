//! The book under `docs/` says what the code says: its metrics, its dependencies, the tests that it names. Its links are in `book.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of a Markdown table's row.
fn cells(row: &str) -> Option<Vec<&str>> {
    let inner = row.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// What stands in backticks in a cell.
fn in_backticks(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The page shows the example's code in parts, and each part is in the example that is compiled and run.
#[test]
fn the_page_about_machine_applications_shows_the_examples_code() {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let (page, example) = (read("docs/machine-application.md"), trimmed(&read("machine/examples/ledger.rs")));
    let blocks: Vec<_> = page.split("\n```rust\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert_eq!(blocks.len(), 4, "{blocks:?}");
    for block in blocks {
        assert!(example.contains(&trimmed(block)), "machine/examples/ledger.rs does not have this:\n{block}");
    }
}

mod metrics {
    use std::process::Command;
    use std::sync::Arc;

    use seeway::catalogue::{self, Metric, Values};
    use seeway::config::Config;
    use seeway::gateway::Gateway;

    use super::*;

    /// A metric as a page of metrics has it.
    #[derive(Debug, Default)]
    struct Shown {
        help: String,
        kind: String,
        /// The labels of each of its samples, without a histogram's `le`.
        samples: Vec<BTreeMap<String, String>>,
    }

    /// What the metrics page of a gateway has that has done nothing yet, with one world on a machine that is not there.
    fn of_gateway() -> BTreeMap<String, Shown> {
        let site = tempfile::tempdir().expect("a folder");
        let keygen = Command::new(env!("CARGO_BIN_EXE_seeway")).arg("keygen").arg(site.path()).output();
        assert!(keygen.expect("the binary runs").status.success());
        let public = std::fs::read_to_string(site.path().join("id_ed25519.pub")).expect("keygen wrote it");
        let text = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = []\nadmin = \"\"\n[[machine]]\nname = \"hsm-a\"\n\
             address = \"127.0.0.1:1\"\nidentity = \"id_ed25519\"\nhost_key = \"{}\"\n\
             [[world]]\nname = \"signer\"\nmachines = [\"hsm-a\"]\n",
            public.trim()
        );
        let file = site.path().join("seeway.toml");
        std::fs::write(&file, text).expect("written");
        let config = Config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let page = runtime.block_on(async {
            let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
            let page = gateway.metrics().await;
            gateway.drain().await.unwrap_or_else(|error| panic!("{error}"));
            page
        });
        of_text(&page)
    }

    /// Metrics in Prometheus's text: `# HELP name text`, `# TYPE name kind`, and below them samples such as `name{label="value"} 1`.
    fn of_text(page: &str) -> BTreeMap<String, Shown> {
        let mut metrics: BTreeMap<String, Shown> = BTreeMap::new();
        let mut current = "";
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
                current = name;
                let before = metrics.insert(name.to_owned(), Shown { help: help.to_owned(), ..Shown::default() });
                assert!(before.is_none(), "{name} is there twice");
                continue;
            }
            let shown = metrics.get_mut(current).unwrap_or_else(|| panic!("{line} stands below no metric"));
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').expect("a name and its kind");
                assert_eq!(name, current, "its help stands above it");
                kind.clone_into(&mut shown.kind);
                continue;
            }
            let (series, _) = line.rsplit_once(' ').expect("a series and its value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let rest = name.strip_prefix(current).unwrap_or_else(|| panic!("{line} stands below {current}"));
            let is_part = ["_bucket", "_sum", "_count"].contains(&rest);
            assert!(if shown.kind == "histogram" { is_part } else { rest.is_empty() }, "{line}: a {}", shown.kind);
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
            let labels = labels.filter(|(name, _)| *name != "le");
            let value = |(name, value): (&str, &str)| (name.to_owned(), value.trim_matches('"').to_owned());
            shown.samples.push(labels.map(value).collect());
        }
        metrics
    }

    #[test]
    fn the_page_is_what_the_catalogue_says() {
        assert_eq!(
            read("docs/metrics.md"),
            catalogue::reference(),
            "made anew by `seeway metrics --reference > docs/metrics.md`"
        );
    }

    #[test]
    fn a_gateway_shows_every_metric_of_the_catalogue_with_its_labels_and_no_other() {
        let mut shown = of_gateway();
        for Metric { name, kind, labels, help, .. } in catalogue::all() {
            let of_page = shown.remove(*name).unwrap_or_else(|| panic!("{name} is not shown"));
            assert_eq!((of_page.kind.as_str(), of_page.help.as_str()), (kind.name(), *help), "{name}");
            assert!(!of_page.samples.is_empty(), "{name} has no sample");
            let wanted: BTreeSet<_> = labels.iter().map(|label| label.name.to_owned()).collect();
            for sample in &of_page.samples {
                assert_eq!(sample.keys().cloned().collect::<BTreeSet<_>>(), wanted, "{name}");
            }
            for label in *labels {
                let values: BTreeSet<_> = of_page.samples.iter().map(|sample| sample[label.name].as_str()).collect();
                let configured = match label.name {
                    "world" => "signer",
                    "machine" => "hsm-a",
                    _ => env!("CARGO_PKG_VERSION"),
                };
                // From the start, so that the first increase is seen.
                let all: BTreeSet<_> = match label.values {
                    Values::Configured(_) => [configured].into(),
                    Values::ConfiguredOr(other, _) => [configured, other].into(),
                    Values::Fixed(values) => values().into_iter().collect(),
                };
                assert_eq!(values, all, "{name}, {}", label.name);
            }
        }
        assert!(shown.is_empty(), "these are not in the catalogue: {:?}", shown.keys());
    }

    #[test]
    fn a_world_has_as_many_series_of_outcomes_as_the_page_says() {
        let page = catalogue::reference();
        assert!(page.contains("20 series of `seeway_jobs_total` for each machine that it may go to, and 20 more"));
        assert_eq!(of_gateway()["seeway_jobs_total"].samples.len(), 20 + 20);
    }

    #[test]
    fn no_page_names_a_metric_that_is_none() {
        let known: BTreeSet<_> = catalogue::all().map(|metric| metric.name).collect();
        for page in pages() {
            let text = read(&page);
            let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
            // What they all begin with is no name.
            for word in words.filter(|word| word.starts_with("seeway_") && *word != "seeway_") {
                // A histogram's parts, and crates and Python modules, which are named like metrics.
                let metric = ["_bucket", "_sum", "_count"].iter().fold(word, |word, part| word.trim_end_matches(part));
                let is_crate = ["seeway_client", "seeway_machine", "seeway_proto", "seeway_bench"].contains(&word);
                assert!(is_crate || known.contains(metric), "{}: {word}", page.display());
            }
        }
    }
}

mod dependencies {
    use super::*;

    /// The crates that the members' manifests name, without the workspace's own, and the folders that use each.
    fn of_manifests() -> BTreeMap<String, BTreeSet<String>> {
        let workspace: toml::Table = read("Cargo.toml").parse().expect("TOML");
        let members = workspace["workspace"]["members"].as_array().expect("a list");
        let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for member in members.iter().filter_map(toml::Value::as_str) {
            let manifest: toml::Table = read(format!("{member}/Cargo.toml")).parse().expect("TOML");
            for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
                for name in
                    manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys)
                {
                    used.entry(name.clone()).or_default().insert(member.to_owned());
                }
            }
        }
        let shared = workspace["workspace"]["dependencies"].as_table().expect("a table");
        let own = |name: &str| shared.get(name).is_some_and(|dependency| dependency.get("path").is_some());
        used.retain(|name, _| !own(name));
        for name in shared.keys().filter(|name| !own(name)) {
            assert!(used.contains_key(name), "{name} stands in the root Cargo.toml, and no crate uses it");
        }
        used
    }

    #[test]
    fn every_direct_dependency_has_its_row_and_no_other_has() {
        let page = read("docs/dependencies.md");
        let (uses, trust) = page.split_once("## Why each is trusted").expect("a section");
        let mut rows = BTreeMap::new();
        for row in uses.lines().filter_map(cells) {
            let Some(name) = in_backticks(row[0]).into_iter().next() else { continue };
            let places: BTreeSet<String> = row[1].split(',').map(|place| place.trim().to_owned()).collect();
            assert!(row.len() == 3 && row[2].len() > 20, "{name}: what for, why this one");
            assert!(rows.insert(name.clone(), places).is_none(), "{name} has two rows");
        }
        assert_eq!(rows, of_manifests());
        let mut trusted = BTreeSet::new();
        for row in trust.lines().filter_map(cells) {
            for name in in_backticks(row[0]) {
                assert!(
                    row.len() == 4 && row[1].len() > 5 && row[3].len() > 20,
                    "{name}: whose, and what speaks for it"
                );
                assert!(trusted.insert(name.clone()), "{name} is trusted twice");
            }
        }
        assert_eq!(trusted, rows.into_keys().collect());
    }

    /// A second version of a crate is a second thing to watch: each has its reason in `deny.toml`.
    #[test]
    fn every_duplicate_that_is_let_be_has_a_reason() {
        let rules: toml::Table = read("deny.toml").parse().expect("TOML");
        assert_eq!(rules["bans"]["multiple-versions"].as_str(), Some("deny"));
        for skipped in rules["bans"]["skip"].as_array().expect("a list") {
            assert!(skipped["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{skipped}");
        }
    }
}

mod unsafe_code {
    use super::*;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
            let name = folder.join(entry.expect("readable").file_name());
            if root().join(&name).is_dir() {
                sources(&name, found);
            } else if name.extension().is_some_and(|extension| extension == "rs") {
                found.push(name);
            }
        }
    }

    /// The compiler refuses it in every crate but the gateway's library, where one line has a reason beside it.
    #[test]
    fn there_is_one_line_of_it_and_the_compiler_refuses_more() {
        let workspace: toml::Table = read("Cargo.toml").parse().expect("TOML");
        assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
        let members = workspace["workspace"]["members"].as_array().expect("a list").iter();
        let mut allowed = Vec::new();
        for member in members.filter_map(toml::Value::as_str) {
            let mut files = Vec::new();
            sources(&Path::new(member).join("src"), &mut files);
            for file in files {
                let text = read(&file);
                let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
                if is_root && !file.ends_with("gateway/src/lib.rs") {
                    assert!(text.contains("#![forbid(unsafe_code)]"), "{}", file.display());
                }
                // Where the lint is let be.
                allowed.extend(text.lines().filter(|line| line.trim() == "unsafe_code,").map(|_| file.clone()));
            }
        }
        assert_eq!(allowed, [Path::new("gateway/src/listen/hardserver/callers.rs")]);
    }
}

mod wire {
    use seeway_proto::wiped::WipedBuffer;
    use seeway_proto::wire::{self, OPEN_1, Profile};

    use super::*;

    #[test]
    fn the_page_has_every_number_of_open_1() {
        let page = read("docs/protocol.md");
        let rows: Vec<_> = page.lines().filter_map(cells).collect();
        let profile: toml::Table = OPEN_1.parse().expect("TOML");
        for section in ["commands", "statuses"] {
            for (name, number) in profile[section].as_table().expect("a table") {
                let number = number.to_string();
                let is_there = rows.iter().any(|row| row[0] == name && row[1] == number);
                assert!(is_there, "{name} = {number}");
            }
        }
    }

    #[test]
    fn the_pages_vectors_are_what_is_written() {
        let page = read("docs/protocol.md");
        let (_, section) = page.split_once("## Test vectors").expect("a section");
        let vectors: Vec<String> = section
            .lines()
            .take_while(|line| !line.starts_with("## "))
            .filter_map(cells)
            .filter_map(|row| in_backticks(row[1]).into_iter().next())
            .map(|bytes| bytes.replace(' ', ""))
            .collect();
        let profile = Profile::open_1();
        let written: Vec<String> = [
            encoded(|out| wire::command_no_op(&profile, out, 7)),
            encoded(|out| wire::reply_no_op(&profile, out, 7)),
            encoded(|out| wire::command_see_job(&profile, out, 1, 0, b"hello")),
            encoded(|out| wire::reply_job(&profile, out, 1, b"hello")),
            encoded(|out| wire::command_get_published_object(&profile, out, 2, "signer")),
            encoded(|out| wire::reply_object(&profile, out, 2, 0x5ee0_0001)),
            encoded(|out| wire::reply_error(&profile, out, 9, profile.statuses.unknown_id, Some("no such world"))),
        ]
        .to_vec();
        assert_eq!(vectors, written);
    }

    fn encoded(write: impl FnOnce(&mut WipedBuffer)) -> String {
        let mut out = WipedBuffer::new();
        write(&mut out);
        out.filled().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }
}

/// Every page of the book, by its path from the workspace's folder.
fn pages() -> Vec<PathBuf> {
    fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
            let name = folder.join(entry.expect("readable").file_name());
            if root().join(&name).is_dir() {
                gather(&name, found);
            } else if name.extension().is_some_and(|extension| extension == "md") {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    gather(Path::new("docs"), &mut found);
    found.sort();
    found
}

mod claims {
    use super::*;

    /// Every test's name, wherever it stands.
    fn tests() -> BTreeSet<String> {
        let mut folders: Vec<PathBuf> =
            ["proto", "client-lib", "gateway", "machine", "tests"].iter().map(|folder| root().join(folder)).collect();
        let mut names = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("readable").map(|entry| entry.expect("readable").path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if entry.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&entry).expect("readable");
                    let functions = text.lines().filter_map(|line| line.trim_start().split_once("fn "));
                    names.extend(functions.filter_map(|(_, rest)| Some(rest.split_once('(')?.0.to_owned())));
                }
            }
        }
        names
    }

    /// Names in the last cells of the rows of a page's tables, whose tests they are.
    fn named(page: &str) -> Vec<String> {
        let text = read(page);
        // A table of claims ends with its tests; the heads and the lines below them name none.
        let rows = text.lines().filter_map(cells).filter(|row| row.len() >= 2);
        rows.flat_map(|row| in_backticks(row[row.len() - 1])).collect()
    }

    #[test]
    fn every_claim_names_tests_that_are_there() {
        let tests = tests();
        let named = named("docs/security.md");
        for name in &named {
            assert!(tests.contains(name), "docs/security.md names the test {name}, which is not there");
        }
        assert!(named.len() > 40, "tests are named: {}", named.len());
    }

    /// Of the walkthrough, the table of tests; the other one says what was not run.
    #[test]
    fn each_of_the_seven_steps_names_tests_that_are_there() {
        let tests = tests();
        let page = read("docs/walkthrough.md");
        let (_, table) = page.split_once("## What tests it").expect("a section");
        let (table, _) = table.split_once("\n## ").expect("another one after it");
        let rows: Vec<_> = table.lines().filter_map(cells).collect();
        for row in rows.iter().filter(|row| row.len() == 3) {
            for name in in_backticks(row[2]) {
                assert!(tests.contains(&name), "step {} names the test {name}, which is not there", row[0]);
            }
        }
        for step in ["1", "2", "3", "4", "5", "6", "7"] {
            assert!(page.contains(&format!("\n## {step}. ")), "there is no step {step}");
            let row = rows.iter().find(|row| row[0] == step).unwrap_or_else(|| panic!("step {step} has no row"));
            assert!(!in_backticks(row[2]).is_empty(), "step {step} names no test");
        }
    }
}
