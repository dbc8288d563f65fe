//! Tables of aligned columns.
//!
//! Owns widths and alignment. Counts characters, not bytes: `µ` and `×` are one column wide.

use crate::report::paint::{Paint, Tone};

const GAP: &str = "  ";
const INDENT: &str = "  ";

/// At most `wide` characters of `text`, with a mark where it was cut.
pub fn cut(text: &str, wide: usize) -> String {
    if text.chars().count() <= wide {
        return text.to_owned();
    }
    let kept: String = text.chars().take(wide.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table {
    heads: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(heads: &[(&str, Align)]) -> Table {
        let heads = heads.iter().map(|(text, align)| (text.to_string(), *align)).collect();
        Table { heads, rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has another number of cells than there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heads.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The lines: heads, then rows.
    pub fn render(&self, paint: Paint) -> String {
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|i| {
                let cells = self.rows.iter().map(|row| width(&row[i]));
                cells.chain([width(&self.heads[i].0)]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = INDENT.to_owned();
            for (i, cell) in cells.enumerate() {
                let pad = " ".repeat(widths[i] - width(cell));
                let gap = if i == 0 { "" } else { GAP };
                line.push_str(gap);
                match self.heads[i].1 {
                    Align::Left => line.extend([cell, &pad]),
                    Align::Right => line.extend([pad.as_str(), cell]),
                }
            }
            line.trim_end().to_owned()
        };
        let heads = line(&mut self.heads.iter().map(|(text, _)| text.as_str()));
        let mut out = paint.tone(Tone::Dim, &heads);
        for row in &self.rows {
            out.push('\n');
            out.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("role", Align::Left), ("p50", Align::Right)]);
        table.row(vec!["server".into(), "1.00 µs".into()]);
        table.row(vec!["x".into(), "27 ns".into()]);
        let expected = "  role        p50\n  server  1.00 µs\n  x         27 ns\n";
        assert_eq!(table.render(Paint::plain()), expected);
    }
}
