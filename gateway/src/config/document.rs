//! Reads a TOML text by the table of keys: every value with its place, of the kind that its key asks for.
//!
//! Finds what is wrong with the text as such: syntax, unknown tables and keys, wrong types, numbers out of range, missing keys. What
//! the values mean to each other is looked at by [`super::build`], its only caller.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Overrides;
use super::keys::{TABLES, Table, Unset, probably, table};
use super::kind::{Located, Source, Value, Wrong, kind_of};
use super::problem::{Gathered, Place};
use super::statement::{first_word, statements};

/// The longest name of a machine or a world, in bytes.
pub(super) const NAME_LIMIT: usize = 128;

/// What a text says.
#[derive(Debug)]
pub(super) struct Document {
    sections: Vec<Section>,
    /// A header could not be read, so a section is missing here that may be there to its writer.
    pub(super) lost_section: bool,
}

/// One table as it stands in the text, with defaults filled in.
#[derive(Debug)]
pub(super) struct Section {
    table: &'static Table,
    /// How problems name it: `limits`, `machine[hsm-a]`, or `machine[0]` where it has no name.
    label: String,
    /// Its header.
    pub(super) place: Place,
    values: BTreeMap<&'static str, Located<Value>>,
    /// The keys that the text has, also those whose value is of no use; with each one's place.
    given: BTreeMap<&'static str, Place>,
}

impl Document {
    /// The section of a table that stands once; made of defaults where the text has none.
    pub(super) fn one(&self, name: &str) -> &Section {
        self.all(name).next().expect("read() adds every table that stands once")
    }

    /// The sections of a table, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(move |section| section.table.name == name)
    }
}

impl Section {
    /// How problems name a key of this section.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.label)
    }

    /// Whether the key was written down, with a value of use or without.
    pub(super) fn given(&self, key: &str) -> Option<&Place> {
        self.given.get(key)
    }

    fn value(&self, key: &str) -> Option<&Located<Value>> {
        debug_assert!(self.table.key(key).is_some(), "{key} is not in the table of keys");
        self.values.get(key)
    }

    /// A [`Kind::Text`]; `None` where it is not given, or wrong (which is noted already).
    pub(super) fn text(&self, key: &str) -> Option<Located<&str>> {
        self.value(key).and_then(|found| match &found.value {
            Value::Text(text) => Some(Located { value: text.as_str(), place: found.place.clone() }),
            _ => None,
        })
    }

    /// A [`Kind::List`]; `None` where it is not given, or wrong.
    pub(super) fn list(&self, key: &str) -> Option<Located<&[Located<String>]>> {
        self.value(key).and_then(|found| match &found.value {
            Value::List(list) => Some(Located { value: list.as_slice(), place: found.place.clone() }),
            _ => None,
        })
    }

    /// A [`Kind::Integer`], or the number of a [`Kind::Shards`]; `None` where it is wrong.
    pub(super) fn integer(&self, key: &str) -> Option<Located<u64>> {
        self.value(key).and_then(|found| match found.value {
            Value::Integer(number) => Some(Located { value: number, place: found.place.clone() }),
            _ => None,
        })
    }

    /// An integer that its key's range keeps within what `T` can hold; `None` where it is wrong.
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &str) -> Option<T> {
        T::try_from(self.integer(key)?.value).ok()
    }

    /// A [`Kind::Boolean`]; `None` where it is wrong.
    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        self.value(key).and_then(|found| match found.value {
            Value::Boolean(yes) => Some(yes),
            _ => None,
        })
    }

    /// A [`Kind::Duration`]; `None` where it is wrong.
    pub(super) fn duration(&self, key: &str) -> Option<Located<Duration>> {
        self.value(key).and_then(|found| match found.value {
            Value::Duration(duration) => Some(Located { value: duration, place: found.place.clone() }),
            _ => None,
        })
    }

    /// Whether a [`Kind::Shards`] says `"auto"`.
    pub(super) fn is_auto(&self, key: &str) -> bool {
        self.value(key).is_some_and(|found| found.value == Value::Auto)
    }
}

/// Reads a text, with the environment's overrides; what is wrong goes to `gathered`.
pub(super) fn read(text: &str, overrides: &Overrides, gathered: &mut Gathered) -> Document {
    // Some editors begin a file with a byte order mark, which no statement does.
    let (mut raw, lost_section) = cut(text.strip_prefix('\u{feff}').unwrap_or(text), gathered);
    for table in TABLES.iter().filter(|table| !table.many) {
        if !raw.iter().any(|section| section.table.name == table.name) {
            raw.push(Raw::new(table, Place::File { line: 1, column: 1 }));
        }
    }
    let mut positions: BTreeMap<&str, usize> = BTreeMap::new();
    let sections = raw
        .into_iter()
        .map(|raw| {
            let position = positions.entry(raw.table.name).or_default();
            *position += 1;
            raw.checked(*position - 1, overrides, gathered)
        })
        .collect();
    overrides.note_useless(&positions, gathered);
    Document { sections, lost_section }
}

/// A section as it was cut from the text.
struct Raw<'t> {
    table: &'static Table,
    place: Place,
    entries: Vec<Entry<'t>>,
}

/// One key of a section.
struct Entry<'t> {
    key: String,
    place: Place,
    /// The value, and what turns its spans into places; `None`: it did not parse, which is noted already.
    value: Option<(Spanned<DeValue<'t>>, Source<'t>)>,
}

/// Where the keys of the statements to come belong.
enum Under {
    /// No header yet.
    Top,
    /// The section at this position.
    Section(usize),
    /// A table that is not in the table of keys.
    Nothing,
}

/// Cuts a text into sections. The flag says whether a header could not be made out at all.
fn cut<'t>(text: &'t str, gathered: &mut Gathered) -> (Vec<Raw<'t>>, bool) {
    let mut sections: Vec<Raw<'t>> = Vec::new();
    let mut lost_section = false;
    let mut under = Under::Top;
    for range in statements(text) {
        let source = Source { text, start: range.start };
        let statement = &text[range];
        let (parsed, errors) = DeTable::parse_recoverable(statement);
        if let Some(error) = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)) {
            note_syntax(error, statement, source, gathered);
        }
        if statement.starts_with('[') {
            let name = if errors.is_empty() { header_name(parsed.get_ref()) } else { first_word(statement).to_owned() };
            let here = source.place(&(0..1));
            let table = find_table(&name, &here, errors.is_empty(), gathered);
            lost_section |= table.is_none() && !errors.is_empty();
            under = table.map_or(Under::Nothing, |table| {
                if errors.is_empty() && statement.starts_with("[[") != table.many {
                    gathered.add(
                        &here,
                        table.name,
                        if table.many { "is a table that may stand many times" } else { "is a table that stands once" },
                        format!("write {}", table.header()),
                    );
                }
                Under::Section(open_section(&mut sections, table, here, errors.is_empty(), gathered))
            });
        } else if errors.is_empty() {
            for (key, value) in parsed.into_inner() {
                let key_place = source.place(&key.span());
                let entry =
                    Entry { key: key.into_inner().into_owned(), place: key_place, value: Some((value, source)) };
                match under {
                    Under::Section(position) => sections[position].entries.push(entry),
                    Under::Top => top_level(entry, &mut sections, gathered),
                    Under::Nothing => {}
                }
            }
        } else if let Under::Section(position) = under {
            sections[position].entries.push(Entry {
                key: first_word(statement).to_owned(),
                place: source.place(&(0..1)),
                value: None,
            });
        }
    }
    (sections, lost_section)
}

/// Notes a statement's syntax error, with what to do about the commonest one.
fn note_syntax(error: &toml::de::Error, statement: &str, source: Source<'_>, gathered: &mut Gathered) {
    let here = source.place(&error.span().unwrap_or(0..0));
    let value = statement.split_once('=').map_or("", |(_, value)| value.trim());
    let first_line = value.lines().next().unwrap_or_default();
    let fix = if statement.starts_with('[') {
        "write a header as [name], or as [[name]] where there may be many"
    } else if !statement.contains('=') {
        "write it as key = value, or make it a comment with #"
    } else if value.is_empty() {
        "write the value after the =, or leave the line out"
    } else if first_line.starts_with(['"', '\'']) {
        "a string ends with the same quote that it begins with, and a new line follows"
    } else if first_line.starts_with('[') {
        "write a list as [\"a\", \"b\"], with commas between and ] at its end"
    } else {
        "put text, addresses and durations into double quotes"
    };
    // No other word is repeated: where a private key was pasted into the file, each of its lines begins with one.
    let word = first_word(statement);
    let known = !statement.starts_with('[') && TABLES.iter().any(|table| table.key(word).is_some());
    let key = if known { word } else { "" };
    gathered.add(&here, key, format!("is not TOML: {}", error.message()), fix);
}

/// The path that a header names, such as `listen` or `a.b`.
fn header_name(parsed: &DeTable<'_>) -> String {
    let Some((key, value)) = parsed.iter().next() else { return String::new() };
    let inner = match value.get_ref() {
        DeValue::Table(inner) => header_name(inner),
        DeValue::Array(list) => {
            list.first().and_then(|first| first.get_ref().as_table()).map_or_else(String::new, header_name)
        }
        _ => String::new(),
    };
    if inner.is_empty() { key.get_ref().clone().into_owned() } else { format!("{}.{inner}", key.get_ref()) }
}

/// The table of this name, or the one that was probably meant, which is then noted.
fn find_table(name: &str, here: &Place, note: bool, gathered: &mut Gathered) -> Option<&'static Table> {
    if let Some(table) = table(name) {
        return Some(table);
    }
    let meant = probably(name, TABLES.iter().map(|table| table.name)).and_then(table);
    if note {
        let fix = match meant {
            Some(meant) => format!("did you mean {}?", meant.header()),
            None => format!("the tables are {}", TABLES.iter().map(Table::header).collect::<Vec<_>>().join(", ")),
        };
        gathered.add(here, name, "is not a table of this file", fix);
    }
    meant
}

/// The position of the section that a header opens.
fn open_section(
    sections: &mut Vec<Raw<'_>>,
    table: &'static Table,
    here: Place,
    note: bool,
    gathered: &mut Gathered,
) -> usize {
    let before = sections.iter().position(|section| section.table.name == table.name);
    match before {
        Some(position) if !table.many => {
            if note {
                gathered.add(
                    &here,
                    table.name,
                    format!("stands here a second time, first in {}", line_of(&sections[position].place)),
                    "put all of its keys under one header",
                );
            }
            position
        }
        _ => {
            sections.push(Raw::new(table, here));
            sections.len() - 1
        }
    }
}

/// Takes a key that stands above every header: only whole tables can, as in `limits.queue = 1` or `world = [{ … }]`.
fn top_level<'t>(entry: Entry<'t>, sections: &mut Vec<Raw<'t>>, gathered: &mut Gathered) {
    let Entry { key, place, value } = entry;
    let Some((value, source)) = value else { return };
    let Some(table) = table(&key) else {
        let owner = TABLES.iter().find(|table| table.key(&key).is_some());
        let fix = match (owner, probably(&key, TABLES.iter().map(|table| table.name)).and_then(table)) {
            (Some(owner), _) => format!("put it under {}", owner.header()),
            (None, Some(meant)) => format!("did you mean {}?", meant.header()),
            (None, None) => "take it out; see the configuration reference for the keys that there are".to_owned(),
        };
        gathered.add(&place, key, "is not a key that stands outside of a table", fix);
        return;
    };
    let tables = match value.into_inner() {
        DeValue::Table(inner) if !table.many => vec![inner],
        DeValue::Array(list) if table.many => list
            .into_iter()
            .filter_map(|element| match element.into_inner() {
                DeValue::Table(inner) => Some(inner),
                other => {
                    gathered.add(
                        &place,
                        table.name,
                        format!("holds {}", kind_of(&other)),
                        format!("write {}", table.header()),
                    );
                    None
                }
            })
            .collect(),
        other => {
            gathered.add(&place, table.name, format!("is {}", kind_of(&other)), format!("write {}", table.header()));
            return;
        }
    };
    for inner in tables {
        // `limits.queue = 1` and `limits.callers = 2` are two statements of one table, not two tables.
        let position = open_section(sections, table, place.clone(), false, gathered);
        sections[position].entries.extend(inner.into_iter().map(|(key, value)| Entry {
            place: source.place(&key.span()),
            key: key.into_inner().into_owned(),
            value: Some((value, source)),
        }));
    }
}

impl Raw<'_> {
    fn new(table: &'static Table, place: Place) -> Self {
        Self { table, place, entries: Vec::new() }
    }

    /// How problems name it; `position` counts its table's sections.
    fn label(&self, position: usize) -> String {
        if !self.table.many {
            return self.table.name.to_owned();
        }
        let name = self.entries.iter().find(|entry| entry.key == "name").and_then(|entry| entry.value.as_ref());
        match name.and_then(|(value, _)| value.get_ref().as_str()) {
            Some(name) if is_name(name) => {
                format!("{}[{name}]", self.table.name)
            }
            _ => format!("{}[{position}]", self.table.name),
        }
    }

    /// Checks each entry against the table of keys, and fills in what is not given.
    fn checked(self, position: usize, overrides: &Overrides, gathered: &mut Gathered) -> Section {
        let label = self.label(position);
        let mut section =
            Section { table: self.table, label, place: self.place, values: BTreeMap::new(), given: BTreeMap::new() };
        for entry in self.entries {
            let path = section.path(&entry.key);
            let Some(key) = section.table.key(&entry.key) else {
                if entry.value.is_some() {
                    note_unknown(section.table, &entry, path, gathered);
                }
                continue;
            };
            if let Some(first) = section.given.get(key.name) {
                gathered.add(
                    &entry.place,
                    path,
                    format!("stands here a second time, first in {}", line_of(first)),
                    "keep one of them",
                );
                continue;
            }
            section.given.insert(key.name, entry.place);
            if overrides.get(section.table, position, key).is_some() {
                continue;
            }
            let Some((value, source)) = entry.value else { continue };
            let place = source.place(&value.span());
            match key.kind.take(value.into_inner(), source) {
                Ok(value) => {
                    section.values.insert(key.name, Located { value, place });
                }
                Err(Wrong { what, fix }) => gathered.add(&place, path, what, fix),
            }
        }
        section.fill(position, overrides, gathered);
        section
    }
}

impl Section {
    /// Sets what the environment overrides and what is not given.
    fn fill(&mut self, position: usize, overrides: &Overrides, gathered: &mut Gathered) {
        for key in self.table.keys {
            let path = self.path(key.name);
            if let Some((variable, text)) = overrides.get(self.table, position, key) {
                let place = Place::Environment(variable.to_owned());
                self.given.insert(key.name, place.clone());
                match key.kind.read_text(text, &place) {
                    Ok(value) => {
                        self.values.insert(key.name, Located { value, place });
                    }
                    Err(Wrong { what, fix }) => gathered.add(&place, path, what, fix),
                }
            } else if !self.given.contains_key(key.name) {
                match key.unset {
                    Unset::Required => {
                        gathered.add(
                            &self.place,
                            path,
                            "is missing",
                            format!("add {} = {}", key.name, key.kind.as_toml("…")),
                        );
                    }
                    Unset::Optional(_) => {}
                    Unset::Default(text) => {
                        let value = key.kind.read_text(text, &self.place);
                        let value = value.expect("a test reads every default");
                        self.values.insert(key.name, Located { value, place: self.place.clone() });
                    }
                }
            }
        }
    }
}

fn note_unknown(table: &Table, entry: &Entry<'_>, path: String, gathered: &mut Gathered) {
    let elsewhere = TABLES.iter().find(|other| other.key(&entry.key).is_some());
    let fix = match (probably(&entry.key, table.keys.iter().map(|key| key.name)), elsewhere) {
        (_, Some(other)) => format!("it belongs under {}", other.header()),
        (Some(meant), None) => format!("did you mean {meant}?"),
        (None, None) => format!(
            "the keys of {} are {}",
            table.header(),
            table.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
        ),
    };
    gathered.add(&entry.place, path, format!("is not a key of {}", table.header()), fix);
}

/// Whether a text can name a machine or a world: short, and nothing that a log line, a metric or a shell stumbles over.
pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_LIMIT).contains(&text.len())
        && text.chars().all(|letter| letter.is_alphanumeric() || "._-/:@+".contains(letter))
}

/// "line 3", or the environment variable.
pub(super) fn line_of(place: &Place) -> String {
    match place {
        Place::File { line, .. } => format!("line {line}"),
        Place::Environment(variable) => variable.clone(),
        Place::Whole => "the file".to_owned(),
    }
}
