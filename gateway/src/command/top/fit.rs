//! Text in a given number of columns: cut, filled, or parted into lines. `draw` uses it.

use ratatui::text::Span;

/// A text in lines of at most so many columns, parted between words where it can be; the last of the most that there may be is cut.
pub(super) fn wrapped(text: &str, room: usize, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let number = lines.len();
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if number == most || width(line) + 1 + width(word) <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.into_iter().map(|line| fit(&line, room, false)).collect()
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text that is so wide, cut or filled.
pub(super) fn fit(text: &str, room: usize, to_the_right: bool) -> String {
    let wide = width(text);
    if wide <= room {
        let gap = " ".repeat(room - wide);
        return if to_the_right { format!("{gap}{text}") } else { format!("{text}{gap}") };
    }
    let mut cut = String::new();
    for letter in text.chars() {
        cut.push(letter);
        if width(&cut) >= room {
            cut.pop();
            break;
        }
    }
    if room > 0 {
        cut.push('…');
    }
    let gap = room.saturating_sub(width(&cut));
    cut + &" ".repeat(gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_wide_as_it_is_to_be() {
        assert_eq!([fit("abc", 5, false), fit("abc", 5, true)], ["abc  ", "  abc"]);
        assert_eq!([fit("abcdef", 4, false), fit("abcd", 1, true), fit("abc", 0, false)], ["abc…", "…", ""]);
        // Letters that take two columns.
        assert_eq!(fit("日本語", 4, false), "日… ");
        for room in 0..12 {
            assert_eq!(width(&fit("日本語 in ümläut", room, true)), room);
        }
    }

    #[test]
    fn a_long_text_is_parted_between_words() {
        assert_eq!(wrapped("one two three", 8, 3), ["one two ", "three   "]);
        assert_eq!(wrapped("one two three", 8, 1), ["one two…"]);
        assert_eq!(wrapped("unbreakable", 5, 3), ["unbr…"]);
        assert_eq!(wrapped("", 3, 1), ["   "]);
    }
}
