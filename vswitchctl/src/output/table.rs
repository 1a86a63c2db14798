//! Tables of text: columns padded on the right, two spaces between them, no lines.

use std::io::{self, Write};

use super::printable;

/// Widest cell that others are aligned with; what is wider juts out of its column, so
/// that one long match does not push the rest off the screen.
const ALIGNED_MAX: usize = 48;

/// Something that is a row of a table.
pub trait Tabular {
    /// Headings of the columns.
    const HEADINGS: &'static [&'static str];
    /// One cell for each heading.
    fn cells(&self) -> Vec<String>;
}

/// Headings and rows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// The table of `values`.
    pub fn of<T: Tabular>(values: &[T]) -> Self {
        let mut table = Self::new(T::HEADINGS);
        values.iter().for_each(|value| table.push(value.cells()));
        table
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it. An empty cell is a dash, so that columns can be counted by programs.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
        let widths = widths(&rows);
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let missing = width.saturating_sub(cell.chars().count());
                line.extend(std::iter::repeat_n(' ', missing + 2));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".into() } else { printable(cell).into_owned() }
}

/// Width of each column: its widest cell that is not too wide.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).filter(|&width| width <= ALIGNED_MAX).max().unwrap_or(0)
    };
    (0..n_columns).map(width).collect()
}

/// Prints what one object has, a field a line.
///
/// # Errors
/// Those of `out`.
pub fn write_fields(out: &mut dyn Write, fields: &[(&str, String)]) -> io::Result<()> {
    let mut table = Table::default();
    for (name, value) in fields {
        table.push(vec![format!("{name}:"), value.clone()]);
    }
    table.write(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(table: &Table) -> String {
        let mut text = Vec::new();
        table.write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let mut table = Table::new(&["NAME", "KEY", "LABELS"]);
        table.push(vec!["web".into(), "1".into(), String::new()]);
        table.push(vec!["database".into(), "12".into(), "tier=back".into()]);
        assert_eq!(
            printed(&table),
            "NAME      KEY  LABELS\n\
             web       1    -\n\
             database  12   tier=back\n"
        );
    }

    #[test]
    fn a_very_wide_cell_juts_out() {
        let mut table = Table::new(&["MATCH", "ACTION"]);
        table.push(vec!["ip".into(), "allow".into()]);
        table.push(vec!["x".repeat(200), "drop".into()]);
        assert_eq!(printed(&table), format!("MATCH  ACTION\nip     allow\n{}  drop\n", "x".repeat(200)));
    }

    #[test]
    fn letters_are_counted_not_bytes_and_nothing_escapes() {
        let mut table = Table::new(&["A", "B"]);
        table.push(vec!["äö".into(), "1".into()]);
        table.push(vec!["a\nb".into(), "2".into()]);
        assert_eq!(printed(&table), "A    B\näö   1\na b  2\n");
    }

    #[test]
    fn rows_may_be_ragged_and_tables_empty() {
        let mut table = Table::new(&["A", "B"]);
        table.push(vec!["1".into()]);
        table.push(vec!["1".into(), "2".into(), "3".into()]);
        assert_eq!(printed(&table), "A  B\n1\n1  2  3\n");
        assert_eq!(printed(&Table::default()), "");
    }

    #[test]
    fn fields_of_one_object() {
        let mut text = Vec::new();
        write_fields(&mut text, &[("name", "switches/web".into()), ("tunnel key", "1".into())]).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "name:        switches/web\ntunnel key:  1\n");
    }
}
