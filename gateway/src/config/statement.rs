//! Cuts a TOML text into statements (headers and `key = value`), so that a mistake in one leaves the others readable.
//!
//! A TOML parser stops, or loses its way, at the first mistake: an unclosed `[` swallows the rest of a file. Cut up first, each
//! statement is parsed by itself and has at most one syntax error of its own. Called by [`super::document`].

use std::ops::Range;

use super::problem::Place;

/// The byte ranges of a text's statements, in order; lines that are blank or hold only a comment belong to none.
pub(super) fn statements(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let end = at + length(&text[at..]);
        let statement = text[at..end].trim_start();
        if !statement.is_empty() && !statement.starts_with('#') {
            found.push(end - statement.len()..end);
        }
        at = end;
    }
    found
}

/// The length of the text's first statement: up to a line's end where no bracket is open, or where the next line plainly begins
/// another statement, so that a forgotten `]` does not reach further than its own statement.
fn length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => {
                at += 1;
                if open.is_empty() || (!open.contains(&b'{') && begins_statement(&text[at..])) {
                    return at;
                }
            }
            b'#' => at += line_length(&bytes[at..]),
            quote @ (b'"' | b'\'') => at += string_length(&bytes[at..], quote),
            bracket @ (b'[' | b'{') => {
                open.push(bracket);
                at += 1;
            }
            b']' | b'}' => {
                open.pop();
                at += 1;
            }
            _ => at += 1,
        }
    }
    at
}

/// Whether the text's first line is `word =` or `[word`: in a list of strings, neither can be an element.
fn begins_statement(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default().trim_start();
    let in_word = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    let inside = line.trim_start_matches(['[', ' ']);
    if inside.len() < line.len() {
        return inside.starts_with(in_word);
    }
    let after = line.trim_start_matches(in_word);
    after.len() < line.len() && after.trim_start().starts_with('=')
}

/// The bytes up to the line's end, which is not counted.
fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

/// The bytes of the string that begins here, quotes included. One on a single line that is not closed ends with its line.
fn string_length(bytes: &[u8], quote: u8) -> usize {
    let over_lines = bytes.starts_with(&[quote; 3]);
    let quotes = if over_lines { 3 } else { 1 };
    let mut at = quotes;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' && at + 1 < bytes.len() && bytes[at + 1] != b'\n' => at += 2,
            b'\n' if !over_lines => return at,
            byte if byte == quote && bytes[at..].starts_with(&[quote; 3][..quotes]) => {
                let closing = bytes[at..].iter().take_while(|byte| **byte == quote).count();
                // Up to two quotes may stand right before the three that close.
                return at + if over_lines { closing.min(5) } else { 1 };
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The word that a broken statement begins with, which is the key (or table) that was meant.
pub(super) fn first_word(statement: &str) -> &str {
    let statement = statement.trim_start_matches(['[', ' ', '\t', '"', '\'']);
    let end = statement
        .find(|letter: char| !(letter.is_ascii_alphanumeric() || "_-".contains(letter)))
        .unwrap_or(statement.len());
    &statement[..end]
}

/// Where byte `offset` of the text is.
pub(super) fn place(text: &str, offset: usize) -> Place {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::File { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        statements(text).into_iter().map(|range| text[range].trim_end()).collect()
    }

    #[test]
    fn a_statement_is_a_header_or_a_key_with_all_of_its_value() {
        assert_eq!(
            cut("# note\n\n  [a] # b\nx = 1\ny = [\n  \"p\", # ]\n  'q]',\n]\nz = { a = 1,\n b = 2 }\n[[c]]"),
            ["[a] # b", "x = 1", "y = [\n  \"p\", # ]\n  'q]',\n]", "z = { a = 1,\n b = 2 }", "[[c]]"]
        );
        assert_eq!(
            cut("a = \"\"\"x\n[y]\n\\\"\"\"\"\"\"\nb = '''\n#'''\nc = \"\\\"[\"\nd = ''\n"),
            ["a = \"\"\"x\n[y]\n\\\"\"\"\"\"\"", "b = '''\n#'''", "c = \"\\\"[\"", "d = ''"]
        );
    }

    #[test]
    fn a_mistake_reaches_no_further_than_its_own_statement() {
        assert_eq!(
            cut("a = [\"x\",\nb = 1\n[[c]\nd = 2\ne = [\"f\"\n[g]\nh = \"i\nj = 'k\n"),
            ["a = [\"x\",", "b = 1", "[[c]", "d = 2", "e = [\"f\"", "[g]", "h = \"i", "j = 'k"]
        );
    }

    #[test]
    fn places_count_lines_and_letters_from_one() {
        let text = "a\r\n é = 1";
        assert_eq!(place(text, 0), Place::File { line: 1, column: 1 });
        let equals = text.find('=').expect("there");
        assert_eq!(place(text, equals), Place::File { line: 2, column: 4 });
        assert_eq!(place(text, 99), Place::File { line: 2, column: 7 });
    }

    #[test]
    fn any_text_is_cut_into_ranges_that_follow_each_other() {
        let letters = ["[", "]", "{", "}", "\"", "'", "#", "\n", "=", "a", "\\", "é", " "];
        // Every text of five of these letters.
        for number in 0..letters.len().pow(5) {
            let mut rest = number;
            let text: String = (0..5)
                .map(|_| {
                    let letter = letters[rest % letters.len()];
                    rest /= letters.len();
                    letter
                })
                .collect();
            let mut end = 0;
            for range in statements(&text) {
                assert!(range.start >= end && range.end > range.start, "{text:?}");
                assert!(text.get(range.clone()).is_some(), "{text:?}");
                end = range.end;
            }
        }
    }
}
