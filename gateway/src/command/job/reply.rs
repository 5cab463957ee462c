//! How a reply is printed: for a person, for a pipe, for a program.

use std::io::{self, Write};

use clap::ValueEnum;
use zeroize::Zeroizing;

/// How replies are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// The bytes as they are, and nothing else
    Raw,
    /// Hexadecimal, a line for each reply
    Hex,
    /// The bytes as they are, and a line's end after each reply
    Text,
}

/// Prints one reply. Without `output` it depends on who reads: one reply into a file or pipe is its bytes and nothing else; on a
/// terminal, and where there are many, each is a line: the text if it can be shown as one, else hexadecimal.
pub(super) fn write_reply(
    out: &mut dyn Write,
    reply: &[u8],
    output: Option<Output>,
    single: bool,
    terminal: bool,
) -> io::Result<()> {
    match output {
        Some(Output::Raw) => out.write_all(reply),
        None if single && !terminal => out.write_all(reply),
        Some(Output::Text) => write_line(out, reply),
        None if is_printable(reply) => write_line(out, reply),
        Some(Output::Hex) | None => write_line(out, hex(reply).as_bytes()),
    }
}

fn write_line(out: &mut dyn Write, line: &[u8]) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

/// Whether a reply is one line of text that does nothing to a terminal but show.
pub(super) fn is_printable(reply: &[u8]) -> bool {
    str::from_utf8(reply).is_ok_and(|text| !text.contains(char::is_control))
}

/// A reply in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    text
}

/// Reads hexadecimal; spaces and colons between bytes are passed over.
pub(super) fn from_hex(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let digits = || text.chars().filter(|letter| !letter.is_whitespace() && *letter != ':');
    // The text may be a job's bytes, so what is wrong with it is said without repeating it.
    if let Some(position) = digits().position(|letter| !letter.is_ascii_hexdigit()) {
        return Err(format!("is not hexadecimal at digit {}", position + 1));
    }
    let count = digits().count();
    if count % 2 == 1 {
        return Err(format!("has {count} digits, and a byte is two"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(count / 2));
    let mut high = None;
    for digit in digits().filter_map(|letter| letter.to_digit(16)) {
        let digit = u8::try_from(digit).expect("a hexadecimal digit is below 16");
        match high.take() {
            None => high = Some(digit << 4),
            Some(high) => bytes.push(high | digit),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &[u8], output: Option<Output>, single: bool, terminal: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write_reply(&mut out, reply, output, single, terminal).expect("written");
        out
    }

    #[test]
    fn a_single_reply_into_a_pipe_is_its_bytes_and_nothing_else() {
        for reply in [b"hello".as_slice(), b"", b"\xff\0\n"] {
            assert_eq!(written(reply, None, true, false), reply);
            assert_eq!(written(reply, Some(Output::Raw), false, true), reply);
        }
    }

    #[test]
    fn people_get_a_line_that_can_not_harm_their_terminal() {
        for (single, terminal) in [(true, true), (false, true), (false, false)] {
            assert_eq!(written("grüße".as_bytes(), None, single, terminal), "grüße\n".as_bytes());
            assert_eq!(written(b"\x1b[2J", None, single, terminal), b"1b5b324a\n");
            assert_eq!(written(b"\xff\xfe", None, single, terminal), b"fffe\n");
            assert_eq!(written(b"two\nlines", None, single, terminal), b"74776f0a6c696e6573\n");
            assert_eq!(written(b"", None, single, terminal), b"\n");
        }
        assert_eq!(written(b"hi", Some(Output::Hex), true, false), b"6869\n");
        assert_eq!(written(b"a\0", Some(Output::Text), true, false), b"a\0\n");
    }

    #[test]
    fn hexadecimal_is_read_as_it_is_written() {
        for bytes in [b"".as_slice(), b"\0\x01\xfe\xff", b"hello"] {
            assert_eq!(from_hex(&hex(bytes)).expect("hexadecimal").as_slice(), bytes);
        }
        assert_eq!(from_hex("DE:ad be\nEF").expect("hexadecimal").as_slice(), b"\xde\xad\xbe\xef");
        assert_eq!(from_hex("abc").expect_err("odd"), "has 3 digits, and a byte is two");
        let error = from_hex("ab cdsecret").expect_err("no digits");
        assert_eq!(error, "is not hexadecimal at digit 5");
    }
}
