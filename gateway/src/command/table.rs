//! Tables for people: columns as wide as they must be.

use std::io::{self, Write};

/// Writes rows below their heads; cells of the last column are not padded.
pub(super) fn write_table<const N: usize>(
    out: &mut dyn Write,
    heads: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    write_rows(out, &heads, rows)
}

/// The same where the number of columns is not known before; each row has as many as there are heads.
pub(super) fn write_rows(out: &mut dyn Write, heads: &[&str], rows: &[impl AsRef<[String]>]) -> io::Result<()> {
    let mut widths: Vec<_> = heads.iter().map(|head| width(head)).collect();
    for row in rows {
        for (column, cell) in widths.iter_mut().zip(row.as_ref()) {
            *column = width(cell).max(*column);
        }
    }
    write_row(out, heads.iter().copied(), &widths)?;
    for row in rows {
        write_row(out, row.as_ref().iter().map(String::as_str), &widths)?;
    }
    Ok(())
}

fn write_row<'a>(out: &mut dyn Write, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    for (cell, column) in cells.zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', column - width(cell) + 2));
    }
    writeln!(out, "{}", line.trim_end())
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [["é".to_owned(), "x".to_owned()], ["long".to_owned(), String::new()]];
        write_table(&mut out, ["a", "b"], &rows).expect("written");
        assert_eq!(String::from_utf8(out).expect("text"), "a     b\né     x\nlong\n");
    }
}
