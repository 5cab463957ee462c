//! Reads one value as the kind that its key asks for: from TOML, or from the text of an environment variable or a default.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeValue;

use super::duration::parse_duration;
use super::keys::Kind;
use super::problem::Place;
use super::statement::place;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A value of the kind that its key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<Located<String>>),
    Integer(u64),
    Boolean(bool),
    Duration(Duration),
    /// The `"auto"` of [`Kind::Shards`].
    Auto,
}

/// Why a value will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) fix: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

/// A statement within its text.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    pub(super) text: &'t str,
    pub(super) start: usize,
}

impl Source<'_> {
    /// Where a span of the statement is in the text.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        place(self.text, self.start + span.start)
    }
}

impl Kind {
    /// Reads a TOML value.
    pub(super) fn take(self, value: DeValue<'_>, source: Source<'_>) -> Result<Value, Wrong> {
        match (self, value) {
            (Self::List | Self::Choices(_), DeValue::Array(list)) => list
                .into_iter()
                .map(|element| {
                    let place = source.place(&element.span());
                    match element.into_inner() {
                        DeValue::String(text) => Ok(Located { value: text.into_owned(), place }),
                        other => Err(Wrong::new(format!("holds {}", kind_of(&other)), self.advice())),
                    }
                })
                .collect::<Result<_, _>>()
                .map(Value::List),
            (Self::Integer(..) | Self::Shards(_), DeValue::Integer(number)) => {
                self.number(u64::from_str_radix(number.as_str(), number.radix()).ok(), number.as_str())
            }
            (Self::Boolean, DeValue::Boolean(yes)) => Ok(Value::Boolean(yes)),
            (Self::Duration { .. }, DeValue::Integer(number)) => Err(Wrong::new(
                format!("is the number {number}, without a unit"),
                format!("write a string with a unit, such as \"{number}s\""),
            )),
            (Self::Text | Self::Choice(_) | Self::Duration { .. }, DeValue::String(text)) => self.scalar(&text),
            (Self::Shards(_), DeValue::String(text)) if text == "auto" => Ok(Value::Auto),
            (_, other) => Err(Wrong::new(format!("is {}", kind_of(&other)), self.advice())),
        }
    }

    /// Reads the text of an environment variable or of a default; a list's elements are split by commas.
    pub(super) fn read_text(self, text: &str, place: &Place) -> Result<Value, Wrong> {
        match self {
            Self::List | Self::Choices(_) => Ok(Value::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|element| !element.is_empty())
                    .map(|element| Located { value: element.to_owned(), place: place.clone() })
                    .collect(),
            )),
            Self::Shards(_) if text == "auto" => Ok(Value::Auto),
            Self::Integer(..) | Self::Shards(_) => self.number(text.replace('_', "").parse().ok(), text),
            Self::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(Wrong::new("is neither true nor false", self.advice())),
            },
            Self::Text | Self::Choice(_) | Self::Duration { .. } => self.scalar(text),
        }
    }

    fn scalar(self, text: &str) -> Result<Value, Wrong> {
        let Self::Duration { zero } = self else {
            return Ok(Value::Text(text.to_owned()));
        };
        let duration = parse_duration(text).map_err(|error| match error.split_once("; ") {
            Some((what, fix)) => Wrong::new(what, fix),
            None => Wrong::new(error, self.advice()),
        })?;
        if duration.is_zero() && !zero {
            return Err(Wrong::new("is zero, which can not work", "write a duration above zero"));
        }
        Ok(Value::Duration(duration))
    }

    /// A whole number within its range; `None` is one that does not even fit 64 bits, or is negative.
    fn number(self, number: Option<u64>, text: &str) -> Result<Value, Wrong> {
        let (least, most) = match self {
            Self::Integer(least, most) => (least, most),
            Self::Shards(most) => (1, most),
            _ => (0, u64::MAX),
        };
        match number {
            Some(number) if (least..=most).contains(&number) => Ok(Value::Integer(number)),
            Some(number) if number < least => Err(Wrong::new(format!("is {number}, below {least}"), self.advice())),
            Some(number) => Err(Wrong::new(format!("is {number}, above {most}"), self.advice())),
            None if text.starts_with('-') => Err(Wrong::new("is below zero", self.advice())),
            None => Err(Wrong::new("is not a whole number of this size", self.advice())),
        }
    }

    /// What to write, as the second half of a problem.
    fn advice(self) -> String {
        format!("write {}", self.expected())
    }

    /// What a value of this kind looks like, in words.
    fn expected(self) -> String {
        match self {
            Self::Text => "a string in double quotes".to_owned(),
            Self::Choice(choices) => listed(choices, "or"),
            Self::List => "a list of strings, such as [\"a\", \"b\"]".to_owned(),
            Self::Choices(choices) => format!("a list of strings among {}", listed(choices, "and")),
            Self::Integer(least, most) => format!("a whole number from {least} to {most}"),
            Self::Boolean => "true or false".to_owned(),
            Self::Duration { .. } => "a duration with a unit, such as \"35s\"".to_owned(),
            Self::Shards(most) => format!("\"auto\" or a whole number from 1 to {most}"),
        }
    }

    /// The kind's short name, for the reference, in Markdown.
    pub(super) fn name(self) -> String {
        match self {
            Self::Text | Self::Choice(_) => "string".to_owned(),
            Self::List | Self::Choices(_) => "list of strings".to_owned(),
            Self::Integer(least, most) => format!("{least} to {most}"),
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Duration { zero: true } => "duration".to_owned(),
            Self::Duration { zero: false } => "duration above zero".to_owned(),
            Self::Shards(most) => format!("`\"auto\"`, or 1 to {most}"),
        }
    }

    /// A default's text as it would stand in the file.
    pub(super) fn as_toml(self, text: &str) -> String {
        match self {
            Self::Integer(..) | Self::Boolean => text.to_owned(),
            Self::Shards(_) if text != "auto" => text.to_owned(),
            Self::Text | Self::Choice(_) | Self::Duration { .. } | Self::Shards(_) => format!("\"{text}\""),
            Self::List | Self::Choices(_) if text.is_empty() => "[]".to_owned(),
            Self::List | Self::Choices(_) => {
                let elements: Vec<String> = text.split(',').map(|element| format!("\"{element}\"")).collect();
                format!("[{}]", elements.join(", "))
            }
        }
    }
}

/// `"a", "b" or "c"`.
fn listed(choices: &[&str], conjunction: &str) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    match quoted.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} {conjunction} {last}", before.join(", ")),
        _ => quoted.concat(),
    }
}

/// "a string", "an integer".
pub(super) fn kind_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) | DeValue::Array(_) => format!("an {}", value.type_str()),
        _ => format!("a {}", value.type_str()),
    }
}
