//! JSON that was written by others: an object in which no name stands twice and nothing is nested deeply.
//!
//! Where a name stands twice, two readers may see two different documents; a token that one component has looked at must mean
//! the same to the next. Called for a token's parts and for key sets.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many objects and lists may stand in each other.
const DEPTH: usize = 8;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonError {
    /// It is no JSON, no object, or something follows the object.
    NotAnObject,
    /// An object has a name twice.
    Twice,
    /// It is nested more deeply than eight levels.
    TooDeep,
}

/// Reads one object and nothing after it.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let wrong = Cell::new(JsonError::NotAnObject);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { depth: DEPTH, wrong: &wrong }.deserialize(&mut reader);
    match read.and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(JsonError::NotAnObject),
        Err(_) => Err(wrong.get()),
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Strict<'w> {
    /// How many levels may still begin.
    depth: usize,
    /// What is to be said of an error; the library's own texts may repeat the input.
    wrong: &'w Cell<JsonError>,
}

impl Strict<'_> {
    fn refuse<E: Error>(self, wrong: JsonError) -> E {
        self.wrong.set(wrong);
        E::custom("refused")
    }

    fn inside<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(self.refuse(JsonError::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| self.refuse(JsonError::NotAnObject))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inside)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(self.refuse(JsonError::Twice));
            }
            let value = map.next_value_seed(inside)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let text = r#"{"a": [1, -2, 1.5, true, null, "x"], "b": {"c": {}}}"#;
        assert_eq!(Value::Object(object(text.as_bytes()).expect("sound")), text.parse::<Value>().expect("JSON"));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in
            ["", "1", "[]", "null", "{", "{}x", "{} {}", "{\"a\":1e999}", "{\"a\":\"\u{0}\"}", "{a:1}", "{\"a\":1,}"]
        {
            assert_eq!(object(text.as_bytes()), Err(JsonError::NotAnObject), "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(JsonError::NotAnObject));
        object(b" {} ").expect("blanks around it are JSON");
    }

    #[test]
    fn a_name_stands_once_however_it_is_spelt_and_wherever() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"b":[{"a":1,"a":2}]}"#] {
            assert_eq!(object(text.as_bytes()), Err(JsonError::Twice), "{text}");
        }
    }

    #[test]
    fn eight_levels_are_read_and_nine_are_not() {
        let nested = |lists: usize| format!("{{\"a\":{}{}}}", "[".repeat(lists), "]".repeat(lists));
        object(nested(DEPTH - 1).as_bytes()).expect("eight levels");
        assert_eq!(object(nested(DEPTH).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(object(nested(500_000).as_bytes()), Err(JsonError::TooDeep));
    }
}
