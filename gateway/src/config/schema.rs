//! Writes the JSON Schema of `seeway.toml` from the table of keys: for editors, by `seeway config schema`.
//!
//! It knows what the table knows: tables, keys, types, ranges, names. What values mean to each other only [`super::build`] looks at.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, TABLES, Table, Unset};

/// What a duration looks like, and one above zero.
const DURATION: &str = "^[0-9]+(ms|s|m|h)$";
const DURATION_ABOVE_ZERO: &str = "^0*[1-9][0-9]*(ms|s|m|h)$";

/// The schema, by draft 2020-12.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for table in TABLES {
        properties.insert(table.name.to_owned(), of_table(table));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "seeway.toml",
        "description": "The configuration of Seeway, the gateway to CodeSafe machines.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": ["machine", "world"],
    })
}

fn of_table(table: &Table) -> Value {
    let mut properties = Map::new();
    for key in table.keys {
        properties.insert(key.name.to_owned(), of_key(key));
    }
    let required: Vec<&str> =
        table.keys.iter().filter(|key| key.unset == Unset::Required).map(|key| key.name).collect();
    let one = json!({
        "type": "object",
        "description": table.doc,
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    if !table.many {
        return one;
    }
    // A file without machines or worlds is of no use; one without rules is.
    let least = u8::from(table.name != "permission");
    json!({ "type": "array", "description": table.doc, "minItems": least, "items": one })
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_kind(key.kind);
    schema["description"] = match key.unset {
        Unset::Optional(meaning) => format!("{} Where it is not there: {meaning}.", key.doc).into(),
        Unset::Required | Unset::Default(_) => key.doc.into(),
    };
    if let Unset::Default(text) = key.unset {
        schema["default"] = default(key.kind, text);
    }
    schema
}

fn of_kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Choice(choices) => json!({ "type": "string", "enum": choices }),
        Kind::List => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Choices(choices) => json!({ "type": "array", "items": { "type": "string", "enum": choices } }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Duration { zero: true } => json!({ "type": "string", "pattern": DURATION }),
        Kind::Duration { zero: false } => json!({ "type": "string", "pattern": DURATION_ABOVE_ZERO }),
        Kind::Shards(most) => json!({
            "oneOf": [
                { "type": "string", "enum": ["auto"] },
                { "type": "integer", "minimum": 1, "maximum": most },
            ],
        }),
    }
}

/// A default's text as a value.
fn default(kind: Kind, text: &str) -> Value {
    let number = || text.parse::<u64>().map_or_else(|_| text.into(), Value::from);
    match kind {
        Kind::Text | Kind::Choice(_) | Kind::Duration { .. } => text.into(),
        Kind::List | Kind::Choices(_) => text.split(',').filter(|element| !element.is_empty()).collect(),
        Kind::Integer(..) | Kind::Shards(_) => number(),
        Kind::Boolean => (text == "true").into(),
    }
}
