//! Colour, or none.
//!
//! Owns when text is coloured: stdout is a terminal and NO_COLOR is unset or empty. Colour only
//! ever repeats what the words say.

use std::io::IsTerminal;

use crate::sys;

/// The widest layout; longer lines are hard to follow with the eye.
const COLUMNS_MAX: usize = 120;
/// The narrowest, and the one for pipes and files.
const COLUMNS_MIN: usize = 80;

/// What colours stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Headings.
    Strong,
    /// What one reads last.
    Dim,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Something must change.
    Bad,
    /// Bars.
    Bar,
}

/// How to print: in how many columns, and with colours or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    /// Columns to fill.
    pub columns: usize,
    /// Whether to colour.
    pub colour: bool,
}

impl Paint {
    /// As stdout and the environment have it.
    pub fn of_stdout() -> Paint {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = sys::stdout_columns().unwrap_or(COLUMNS_MIN);
        Paint {
            columns: columns.clamp(COLUMNS_MIN, COLUMNS_MAX),
            colour: std::io::stdout().is_terminal() && !no_colour,
        }
    }

    /// Eighty columns, no colour: the form in pipes.
    #[cfg(test)]
    pub fn plain() -> Paint {
        Paint { columns: COLUMNS_MIN, colour: false }
    }

    /// `text` in the colour of `tone`, if colours are on.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Bar => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Breaks `text` at spaces into lines of at most `columns` characters; a longer word stands alone.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_on_or_not_there_at_all() {
        let colour = Paint { columns: 80, colour: true };
        assert_eq!(colour.tone(Tone::Bad, "no"), "\x1b[1;31mno\x1b[0m");
        assert_eq!(Paint::plain().tone(Tone::Bad, "no"), "no");
    }

    #[test]
    fn text_breaks_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible x", 5), ["incomprehensible", "x"]);
        assert_eq!(wrap("", 5), Vec::<String>::new());
    }
}
