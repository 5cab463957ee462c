//! The book under `docs/` says what the code says: its metrics, its dependencies, its links.

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

/// What stands in double quotes in a piece of source text.
fn in_quotes(source: &str) -> Vec<&str> {
    source.split('"').skip(1).step_by(2).collect()
}

mod metrics {
    use super::*;

    /// A metric's kind and labels.
    type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

    /// Each call of a macro such as `gauge!(…)` in the source, up to the end of its arguments.
    fn calls<'s>(source: &'s str, name: &str) -> Vec<&'s str> {
        let opening = format!("{name}!(");
        source
            .match_indices(&opening)
            .filter(|(at, _)| !source[..*at].ends_with("describe_") && !source[..*at].ends_with('_'))
            .map(|(at, _)| {
                let arguments = &source[at + opening.len()..];
                let mut depth = 1;
                let end = arguments.find(|letter| {
                    depth += match letter {
                        '(' => 1,
                        ')' => -1,
                        _ => 0,
                    };
                    depth == 0
                });
                &arguments[..end.expect("the call is closed")]
            })
            .collect()
    }

    /// The name that a call begins with: a literal, or a constant of this file.
    fn name_in<'s>(source: &'s str, arguments: &'s str) -> &'s str {
        let first = arguments.split(',').next().unwrap_or_default().trim();
        match first.strip_prefix('"') {
            Some(literal) => literal.trim_end_matches('"'),
            None => {
                let definition = format!("const {first}: &str = \"");
                let (_, after) = source.split_once(&definition).unwrap_or_else(|| panic!("`{first}` is a constant"));
                after.split('"').next().unwrap_or_default()
            }
        }
    }

    fn of_source() -> Metrics {
        let source = read("gateway/src/admin/metrics.rs");
        let mut metrics = Metrics::new();
        for kind in ["gauge", "counter", "histogram"] {
            for arguments in calls(&source, &format!("describe_{kind}")) {
                metrics.insert(name_in(&source, arguments).to_owned(), (kind.to_owned(), BTreeSet::new()));
            }
        }
        for kind in ["gauge", "counter", "histogram"] {
            for arguments in calls(&source, kind) {
                let name = name_in(&source, arguments);
                let (described_as, labels) = metrics.get_mut(name).unwrap_or_else(|| panic!("{name} is described"));
                assert_eq!(described_as, kind, "{name}");
                let names =
                    in_quotes(arguments).into_iter().filter(|quoted| arguments.contains(&format!("\"{quoted}\" =>")));
                labels.extend(names.map(str::to_owned));
            }
        }
        metrics
    }

    /// The rows `| name | kind | labels | … |` of the page.
    fn of_page() -> Metrics {
        let page = read("docs/operations.md");
        let mut metrics = Metrics::new();
        for row in page.lines().filter_map(cells) {
            let Some(name) = in_backticks(row[0]).into_iter().find(|name| name.starts_with("seeway_")) else {
                continue;
            };
            if !["gauge", "counter", "histogram"].contains(&row[1]) {
                continue;
            }
            let before = metrics.insert(name.clone(), (row[1].to_owned(), in_backticks(row[2])));
            assert!(before.is_none(), "{name} has two rows");
        }
        metrics
    }

    #[test]
    fn the_page_has_every_metric_with_its_kind_and_labels_and_no_other() {
        let source = of_source();
        assert!(source.len() > 15, "the source text was understood: {source:?}");
        assert_eq!(source["seeway_jobs_total"].1.len(), 2, "labels are found");
        assert_eq!(of_page(), source);
    }

    #[test]
    fn no_page_names_a_metric_that_is_none() {
        let known = of_source();
        for page in pages() {
            let text = read(&page);
            let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
            for word in words.filter(|word| word.starts_with("seeway_")) {
                // A histogram's parts, and crates and Python modules, which are named like metrics.
                let metric = ["_bucket", "_sum", "_count"].iter().fold(word, |word, part| word.trim_end_matches(part));
                let is_crate = ["seeway_client", "seeway_machine", "seeway_proto", "seeway_bench"].contains(&word);
                assert!(is_crate || known.contains_key(metric), "{}: {word}", page.display());
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
        let mut rows = BTreeMap::new();
        for row in page.lines().filter_map(cells) {
            let Some(name) = in_backticks(row[0]).into_iter().next() else { continue };
            let places: BTreeSet<String> = row[1].split(',').map(|place| place.trim().to_owned()).collect();
            assert!(row.len() == 3 && row[2].len() > 20, "{name}: what for, why this one");
            assert!(rows.insert(name.clone(), places).is_none(), "{name} has two rows");
        }
        assert_eq!(rows, of_manifests());
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

mod links {
    use super::*;

    /// A page's text without code: no links are meant there.
    fn prose(text: &str) -> String {
        let mut in_code = false;
        let mut prose = String::new();
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                for piece in line.split('`').step_by(2) {
                    prose.push_str(piece);
                    // Where a piece of code stood.
                    prose.push('x');
                }
                prose.push('\n');
            }
        }
        assert!(!in_code, "a block of code is not closed");
        prose
    }

    /// The targets of `[text](target)`; a text or target may be cut in two by a line's end.
    fn targets(text: &str) -> Vec<String> {
        let prose = prose(text);
        prose
            .match_indices("](")
            .filter_map(|(at, opening)| prose[at + opening.len()..].split(')').next())
            .map(|target| target.trim_end_matches('x').replace('\n', ""))
            .collect()
    }

    /// A heading's anchor, as mdBook and GitHub make it.
    fn anchors(text: &str) -> BTreeSet<String> {
        let mut in_code = false;
        let headings = text.lines().filter(|line| {
            in_code ^= line.starts_with("```");
            !in_code && line.starts_with('#')
        });
        headings
            .map(|heading| {
                let title = heading.trim_start_matches('#').trim().to_lowercase();
                let kept = title.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
                kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
            })
            .collect()
    }

    #[test]
    fn every_link_leads_somewhere() {
        let mut count = 0;
        let others = ["README.md", "deploy/README.md"].map(PathBuf::from);
        for page in pages().into_iter().chain(others) {
            let folder = page.parent().unwrap_or(Path::new(""));
            for target in targets(&read(&page)) {
                if target.contains("://") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
                let file = if file.is_empty() { page.clone() } else { folder.join(file) };
                assert!(root().join(&file).exists(), "{}: nothing is at {target}", page.display());
                let found = anchor.is_empty() || anchors(&read(&file)).contains(anchor);
                assert!(found, "{}: {} has no heading #{anchor}", page.display(), file.display());
                count += 1;
            }
        }
        assert!(count > 30, "links were found: {count}");
    }

    #[test]
    fn every_page_is_in_the_summary_and_the_summary_has_no_other() {
        let summary: BTreeSet<PathBuf> =
            targets(&read("docs/SUMMARY.md")).iter().map(|target| Path::new("docs").join(target)).collect();
        let there: BTreeSet<PathBuf> =
            pages().into_iter().filter(|page| page.file_name().is_some_and(|name| name != "SUMMARY.md")).collect();
        assert_eq!(summary, there);
    }
}
