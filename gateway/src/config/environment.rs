//! Environment variables that override single keys: `SEEWAY_TABLE__KEY`, and `SEEWAY_TABLE__NUMBER__KEY` where a table may stand
//! many times (`SEEWAY_MACHINE__0__ADDRESS` is the first `[[machine]]`'s address).
//!
//! They change a key of a section that the file has; they add no machines and no worlds. Variables without a double underscore, such as
//! `SEEWAY_LOG`, are none of this module's business.

use std::collections::BTreeMap;

use super::keys::{Key, TABLES, Table, probably, table};
use super::problem::{Gathered, Place};

const PREFIX: &str = "SEEWAY_";

/// The variables of this process that are text.
pub(super) fn of_process() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(variable, value)| Some((variable.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// What the environment overrides.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// By table, position and key: the variable and its value.
    values: BTreeMap<(&'static str, usize, &'static str), (String, String)>,
}

impl Overrides {
    /// Picks the overrides from all of the environment; those that name nothing are problems.
    pub(super) fn pick(environment: impl IntoIterator<Item = (String, String)>, gathered: &mut Gathered) -> Self {
        let mut overrides = Self::default();
        for (variable, value) in environment {
            let Some(path) = variable.strip_prefix(PREFIX).filter(|path| path.contains("__")) else {
                continue;
            };
            match find(path) {
                Ok(found) => {
                    overrides.values.insert(found, (variable, value));
                }
                Err(fix) => gathered.add(
                    &Place::Environment(variable.clone()),
                    "",
                    "overrides no key of the configuration",
                    fix,
                ),
            }
        }
        overrides
    }

    /// The variable that overrides this key of the table's section at `position`, and its value.
    pub(super) fn get(&self, table: &Table, position: usize, key: &Key) -> Option<(&str, &str)> {
        self.values.get(&(table.name, position, key.name)).map(|(variable, value)| (variable.as_str(), value.as_str()))
    }

    /// Notes the variables for sections that the file does not have; `counts` says how many it has of each table.
    pub(super) fn note_useless(&self, counts: &BTreeMap<&str, usize>, gathered: &mut Gathered) {
        for ((table, position, _), (variable, _)) in &self.values {
            let count = counts.get(table).copied().unwrap_or(0);
            if *position >= count {
                gathered.add(
                    &Place::Environment(variable.clone()),
                    "",
                    format!("names [[{table}]] number {position}, counted from 0, and the file has {count}"),
                    "correct the number, or write the section into the file",
                );
            }
        }
    }
}

/// The table, position and key that a variable's name, without its prefix, stands for; or what to do about it.
fn find(path: &str) -> Result<(&'static str, usize, &'static str), String> {
    let path = path.to_lowercase();
    let mut levels = path.split("__");
    let name = levels.next().unwrap_or_default();
    let table = table(name).ok_or_else(|| match probably(name, TABLES.iter().map(|table| table.name)) {
        Some(meant) => format!("did you mean {PREFIX}{}__…?", meant.to_uppercase()),
        None => "unset it, or see the configuration reference for the tables that there are".to_owned(),
    })?;
    let stem = format!("{PREFIX}{}", table.name.to_uppercase());
    let position = if table.many {
        let number = levels.next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("write {stem}__0__KEY for the first [[{name}]], {stem}__1__KEY for the second"))?
    } else {
        0
    };
    let key = levels.next().unwrap_or_default();
    match (table.key(key), levels.next()) {
        (Some(key), None) => Ok((table.name, position, key.name)),
        _ => Err(match probably(key, table.keys.iter().map(|key| key.name)) {
            Some(meant) if table.many => format!("did you mean {stem}__{position}__{}?", meant.to_uppercase()),
            Some(meant) => format!("did you mean {stem}__{}?", meant.to_uppercase()),
            None => "unset it, or see the configuration reference for the keys that there are".to_owned(),
        }),
    }
}
