//! Reads a hardserver's configuration file: `syntax-version=1`, then sections of entries of `field=value` lines. For
//! `seeway config import`, which makes something of what is found here.
//!
//! Entries are split by lines of hyphens; `#` begins a comment; blanks at either end of a line do not count. What is wrong is gathered
//! with its line.

/// The largest file that is read, in bytes. A hardserver's has some 20 kB, most of it comments.
pub(super) const FILE_LIMIT: u64 = 1 << 20;

/// Problems that are listed of one file; of more only the count is said.
pub(super) const PROBLEMS_LIMIT: usize = 100;

/// The newest form of the file that is understood.
const SYNTAX_VERSION: u32 = 1;

/// The sections that something is made of. What is wrong with another one keeps nothing from being made of these.
const READ: [&str; 4] = ["codesafe", "nethsm_imports", "server_settings", "server_startup"];

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// Its sections, in order; no two that are [`READ`] have the same name.
    pub(super) sections: Vec<Section>,
    /// Lines of the others that are none.
    pub(super) unread: Vec<Unread>,
}

/// A line that is none, in a section that nothing is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// Counts from 1.
    pub(super) line: usize,
    pub(super) section: String,
    /// What is wrong with it.
    pub(super) what: String,
}

/// One `[section]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// Entries with at least one field.
    pub(super) entries: Vec<Entry>,
}

/// What stands between two lines of hyphens.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Never empty; no two have the same name.
    pub(super) fields: Vec<Field>,
}

/// One line `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Counts from 1.
    pub(super) line: usize,
    pub(super) name: String,
    /// Printable ASCII, without blanks at its ends; may be empty.
    pub(super) value: String,
}

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Counts from 1.
    pub(super) line: usize,
    pub(super) what: String,
    pub(super) fix: String,
}

impl Problem {
    pub(super) fn new(line: usize, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { line, what: what.into(), fix: fix.into() }
    }
}

impl File {
    /// The entries of a section; none where it is not there.
    pub(super) fn entries(&self, section: &str) -> &[Entry] {
        self.sections.iter().find(|found| found.name == section).map_or(&[], |found| &found.entries)
    }
}

impl Entry {
    /// The field of this name.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field's value, where there is one and it is not empty.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.field(name).map(|field| field.value.as_str()).filter(|value| !value.is_empty())
    }

    /// The line that it begins in.
    pub(super) fn line(&self) -> usize {
        self.fields.first().map_or(0, |field| field.line)
    }
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines; never empty.
pub(super) fn parse(bytes: &[u8]) -> Result<File, Vec<Problem>> {
    let mut reader = Reader::default();
    for (position, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        reader.line(position + 1, line.trim_ascii());
    }
    if !reader.has_version {
        reader.problems.insert(0, no_version(1));
    }
    if reader.problems.is_empty() { Ok(reader.file) } else { Err(reader.problems) }
}

fn no_version(line: usize) -> Problem {
    Problem::new(
        line,
        "there is no syntax-version=1",
        "name a hardserver's configuration, mostly /opt/nfast/kmdata/config/config",
    )
}

#[derive(Default)]
struct Reader {
    has_version: bool,
    file: File,
    /// The next field begins an entry.
    is_new_entry: bool,
    problems: Vec<Problem>,
}

impl Reader {
    /// Takes a line without its end and without blanks around it.
    fn line(&mut self, number: usize, line: &[u8]) {
        if line.is_empty() || line.starts_with(b"#") {
            return;
        }
        let Some(text) = text_of(line) else {
            let what = "has characters that are not printable ASCII";
            self.note(Problem::new(number, what, "save the file as plain text, and take them out"));
            return;
        };
        if text.bytes().all(|byte| byte == b'-') {
            self.is_new_entry = true;
        } else if let Some(name) = text.strip_prefix('[') {
            self.section(number, name);
        } else if let Some((name, value)) = text.split_once('=') {
            self.field(number, name.trim(), value.trim());
        } else {
            let what = "is neither a section, nor field=value, nor a comment";
            self.note(Problem::new(number, what, "write field=value, or begin the line with #"));
        }
    }

    /// Notes what is wrong with a line, as a problem where something would be made of its section.
    fn note(&mut self, problem: Problem) {
        match self.file.sections.last() {
            Some(Section { name, .. }) if !name.is_empty() && !READ.contains(&name.as_str()) => {
                let Problem { line, what, .. } = problem;
                self.file.unread.push(Unread { line, section: name.clone(), what });
            }
            _ => self.problems.push(problem),
        }
    }

    fn section(&mut self, line: usize, name: &str) {
        let Some(name) = name.strip_suffix(']').map(str::trim).filter(|name| is_word(name)) else {
            self.problems.push(Problem::new(line, "is not a section's name", "write it as [name]"));
            // Its fields are no other section's.
            self.file.sections.push(Section { name: String::new(), entries: Vec::new() });
            return;
        };
        if READ.contains(&name) && self.file.sections.iter().any(|section| section.name == name) {
            let what = format!("the section [{name}] is there a second time");
            self.problems.push(Problem::new(line, what, "put its entries into the first one, with ----- between them"));
        }
        self.file.sections.push(Section { name: name.to_owned(), entries: Vec::new() });
        self.is_new_entry = true;
    }

    fn field(&mut self, line: usize, name: &str, value: &str) {
        if name == "syntax-version" && self.file.sections.is_empty() {
            self.version(line, value);
            return;
        }
        if !is_word(name) {
            self.note(Problem::new(line, "has no field's name before its =", "write field=value"));
            return;
        }
        let Some(section) = self.file.sections.last_mut() else {
            self.problems.push(Problem::new(
                line,
                format!("{name} stands in no section"),
                "put a line [section] above it",
            ));
            return;
        };
        if self.is_new_entry {
            section.entries.push(Entry::default());
            self.is_new_entry = false;
        }
        let Some(entry) = section.entries.last_mut() else { return };
        if let Some(first) = entry.field(name) {
            let what = format!("{name} is there a second time in this entry, first in line {}", first.line);
            self.note(Problem::new(line, what, "keep one of them, or put ----- between two entries"));
            return;
        }
        entry.fields.push(Field { line, name: name.to_owned(), value: value.to_owned() });
    }

    fn version(&mut self, line: usize, value: &str) {
        if self.has_version {
            let what = "syntax-version is there a second time";
            self.problems.push(Problem::new(line, what, "keep the first"));
        } else if !value.parse::<u32>().is_ok_and(|version| version <= SYNTAX_VERSION) {
            let what = format!("has the syntax version {value}, and {SYNTAX_VERSION} is the newest that is understood");
            self.problems.push(Problem::new(line, what, "write [codesafe]'s machines into seeway.toml by hand"));
        }
        self.has_version = true;
    }
}

fn text_of(line: &[u8]) -> Option<&str> {
    let is_text = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\t';
    if line.iter().all(is_text) { std::str::from_utf8(line).ok() } else { None }
}

/// Whether a text can name a section or a field.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_entries_and_fields_are_found_with_their_lines() {
        let text = "# a comment with \u{e9}\n  syntax-version=1\r\n\n[codesafe]\n# esn=ESN\nesn = A-1 \nimage_file=a=b.cs5\n-----\nesn=A-2\n--\n[empty]\n";
        let file = parse(text.as_bytes()).expect("read");
        let entries = file.entries("codesafe");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].field("esn"), Some(&Field { line: 6, name: "esn".into(), value: "A-1".into() }));
        assert_eq!(entries[0].value("image_file"), Some("a=b.cs5"));
        assert_eq!(entries[1].line(), 9);
        assert!(file.entries("empty").is_empty() && file.entries("absent").is_empty());
        assert_eq!(file.sections.len(), 2);
    }

    #[test]
    fn everything_that_is_wrong_is_named_with_its_line() {
        let text = b"esn=1\n[a\nx=1\n[codesafe]\nx=1\nx=2\nnonsense\n=3\n\xff\n[codesafe]\n";
        let problems = parse(text).expect_err("refused");
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 1, 2, 6, 7, 8, 9, 10], "{problems:?}");
        let version = parse(b"syntax-version=2\n").expect_err("refused");
        assert!(version[0].what.contains("version 2"), "{version:?}");
        assert!(parse(b"syntax-version=1\nsyntax-version=1").is_err());
    }

    #[test]
    fn what_is_wrong_where_nothing_is_read_is_no_problem() {
        let text =
            b"syntax-version=1\n[other]\nx=1\nx=2\nnonsense\n=3\nname=M\xfcller\n[other]\ny=1\n[codesafe]\nesn=A-1\n";
        let file = parse(text).expect("read");
        let lines: Vec<(usize, &str)> =
            file.unread.iter().map(|unread| (unread.line, unread.section.as_str())).collect();
        assert_eq!(lines, [(4, "other"), (5, "other"), (6, "other"), (7, "other")]);
        assert_eq!(file.entries("codesafe").len(), 1);
    }
}
