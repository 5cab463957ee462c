//! What a terminal may be shown of other people's text: of machines, of callers, and of whoever answers in a gateway's place.
//!
//! Everything that the commands for operators hear comes through here, and `top` makes single lines of it.

use serde_json::Value;

/// A text on one line that moves no cursor, changes no colour and turns no direction, whoever wrote it.
pub(in crate::command) fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\t' | '\n' | '\r' => ' ',
            letter if letter.is_control() => '\u{fffd}',
            // Without a width, or for the direction of what follows.
            '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
            letter => letter,
        })
        .collect()
}

/// The same with its lines, where there may be several: problems of a configuration, one below the other.
pub(in crate::command) fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// The same for every text in what a gateway said; names of fields are on one line in any case.
pub(in crate::command) fn clean_all(value: &mut Value, clean_text: fn(&str) -> String) {
    match value {
        Value::String(text) => *text = clean_text(text),
        Value::Array(values) => values.iter_mut().for_each(|value| clean_all(value, clean_text)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut value)| {
                    clean_all(&mut value, clean_text);
                    (clean(&name), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_is_left_of_a_text() {
        let hostile = "a\u{1b}[2J\u{7}\u{9b}31m\u{202e}b\u{200b}\r\n\tc\u{7f}";
        let text = clean(hostile);
        assert!(!text.contains(char::is_control), "{text:?}");
        assert_eq!(text, "a\u{fffd}[2J\u{fffd}\u{fffd}31m\u{fffd}b\u{fffd}   c\u{fffd}");
        assert_eq!(clean_lines(hostile), "a\u{fffd}[2J\u{fffd}\u{fffd}31m\u{fffd}b\u{fffd} \n c\u{fffd}");
        assert_eq!(clean("hsm-a Größe 日本"), "hsm-a Größe 日本");
        let mut value = serde_json::json!({ "a\u{1b}": ["\u{1b}\n", { "b": "\u{7}", "c": 1 }] });
        clean_all(&mut value, clean_lines);
        assert_eq!(value, serde_json::json!({ "a\u{fffd}": ["\u{fffd}\n", { "b": "\u{fffd}", "c": 1 }] }));
        clean_all(&mut value, clean);
        assert_eq!(value, serde_json::json!({ "a\u{fffd}": ["\u{fffd} ", { "b": "\u{fffd}", "c": 1 }] }));
    }
}
