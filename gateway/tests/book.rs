//! The pages hold together: every link leads to a file and a heading that are there, every picture is there, and every page is in the
//! book's summary. The same of the HTML that mdBook makes of them is asked by `tests/python/check_book.py`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder whose name ends in one of these, by its path from the workspace's folder.
fn files(folder: &str, endings: &[&str]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).expect("a folder") {
            let name = folder.join(entry.expect("readable").file_name());
            if root().join(&name).is_dir() {
                folders.push(name);
            } else if name.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
                found.insert(name);
            }
        }
    }
    found
}

/// The book's pages.
fn pages() -> BTreeSet<PathBuf> {
    files("docs", &["md"])
}

/// The book's pages, and the others that people read.
fn texts() -> BTreeSet<PathBuf> {
    let others = ["README.md", "tests/fuzz/README.md"].map(PathBuf::from);
    pages().into_iter().chain(files("deploy", &["md"])).chain(others).collect()
}

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

/// `[text](target)` or `![text](target)`; a text or target may be cut in two by a line's end.
struct Link {
    text: String,
    target: String,
    is_picture: bool,
}

fn links(text: &str) -> Vec<Link> {
    let prose = prose(text);
    let one = |(at, between): (usize, &str)| {
        let before = &prose[..at];
        let opening = before.rfind('[')?;
        let target = prose[at + between.len()..].split(')').next()?;
        Some(Link {
            text: before[opening + 1..].to_owned(),
            target: target.trim_end_matches('x').replace('\n', ""),
            is_picture: before[..opening].ends_with('!'),
        })
    };
    prose.match_indices("](").filter_map(one).collect()
}

/// A heading's anchor, as mdBook and GitHub make it.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let headings = text.lines().filter(|line| {
        in_code ^= line.trim_start().starts_with("```");
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

/// A path without `..`, where there is a folder to leave.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if plain.pop() => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for page in texts() {
        let folder = page.parent().unwrap_or(Path::new(""));
        for Link { target, .. } in links(&read(&page)) {
            if target.contains("://") {
                assert!(is_address(&target), "{}: {target} is no address that a reader can open", page.display());
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { page.clone() } else { plain(&folder.join(file)) };
            assert!(root().join(&file).exists(), "{}: nothing is at {target}", page.display());
            let found = anchor.is_empty() || anchors(&read(&file)).contains(anchor);
            assert!(found, "{}: {} has no heading #{anchor}", page.display(), file.display());
            let leaves = page.starts_with("docs") && !file.starts_with("docs");
            assert!(!leaves, "{}: {target} leads out of the book, which is read without the rest", page.display());
            count += 1;
        }
    }
    assert!(count > 150, "links were found: {count}");
}

/// Whether a link to another site has a name that can be looked up, and is not read by others on its way.
fn is_address(target: &str) -> bool {
    let host = target.strip_prefix("https://").and_then(|rest| rest.split(['/', ':']).next());
    host.is_some_and(|host| host.contains('.') && !host.ends_with(".example") && !host.ends_with("example.com"))
}

/// Where a text has an address that is neither a link nor code, nobody can click on it; what stands in `<…>` is at this computer.
#[test]
fn no_address_stands_bare() {
    let bare = |text: &str| -> Vec<String> {
        let prose = prose(text);
        let addresses = prose.match_indices("http").filter(|(at, _)| {
            let rest = &prose[*at..];
            rest.starts_with("http://") || rest.starts_with("https://")
        });
        let up_to_space = |at: usize| prose[at..].split_whitespace().next().unwrap_or_default().to_owned();
        let is_fine = |at: usize| {
            prose[..at].ends_with("](")
                || (prose[..at].ends_with('<') && up_to_space(at).starts_with("http://127.0.0.1:"))
        };
        addresses.filter(|(at, _)| !is_fine(*at)).map(|(at, _)| up_to_space(at)).collect()
    };
    assert_eq!(bare("see http://a.example/ and `http://b/` and [c](https://c.org)"), ["http://a.example/"]);
    assert_eq!(bare("open <http://127.0.0.1:9464/>, not <https://a.org/> at all"), ["https://a.org/>"]);
    for page in texts() {
        let found = bare(&read(&page));
        assert!(found.is_empty(), "{}: {found:?}", page.display());
    }
}

#[test]
fn every_picture_is_shown_and_says_what_it_shows() {
    let mut shown = BTreeSet::new();
    for page in texts() {
        let folder = page.parent().unwrap_or(Path::new(""));
        for Link { text, target, .. } in links(&read(&page)).into_iter().filter(|link| link.is_picture) {
            assert!(text.len() > 10, "{}: {target} has no text for whoever does not see it", page.display());
            shown.insert(plain(&folder.join(target)));
        }
    }
    let there = files("docs", &["png", "svg", "jpg", "webp"]);
    assert!(!there.is_empty(), "pictures were found");
    assert_eq!(shown, there, "pictures that are shown, and those that are there");
}

#[test]
fn every_page_is_in_the_summary_and_the_summary_has_no_other() {
    let mut summary: Vec<PathBuf> =
        links(&read("docs/SUMMARY.md")).iter().map(|link| Path::new("docs").join(&link.target)).collect();
    // Sorted, so that a page that is there twice shows.
    summary.sort();
    let there: Vec<PathBuf> =
        pages().into_iter().filter(|page| page.file_name().is_some_and(|name| name != "SUMMARY.md")).collect();
    assert_eq!(summary, there);
}

/// The four kinds of pages, for whoever comes to learn, to get something done, to look something up, or to understand.
#[test]
fn the_summary_has_the_four_parts_in_their_order() {
    let summary = read("docs/SUMMARY.md");
    let parts: Vec<_> = summary.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    assert_eq!(parts, ["Summary", "Tutorial", "How-to", "Reference", "Explanation"]);
}
