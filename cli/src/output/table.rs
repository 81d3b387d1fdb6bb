//! Tables that fit: columns are aligned, long cells go on in the next line, nothing is cut off.

use std::iter;

use super::text::plain;

/// A table: rows of cells under titles.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    title: &'static str,
    flow: Flow,
}

/// How a column gives way when the table is too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Not at all.
    Fixed,
    /// Its cells go on in the next line, down to this width.
    Wrap(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What a cell means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
}

const GAP: &str = "  ";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

// === impl Cell ===

impl Cell {
    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = plain(text.as_ref());
        Self {
            text: if text.is_empty() { "-".to_owned() } else { text },
            tone,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    /// An empty text is shown as `-`, so that every row has all its words.
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

// === impl Tone ===

impl Tone {
    const fn ansi(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Warning => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

// === impl Table ===

impl Table {
    pub(crate) fn new(columns: impl IntoIterator<Item = (&'static str, Flow)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(title, flow)| Column { title, flow })
            .collect();
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Appends the table to `out`. It is wider than `width` only where its fixed columns are.
    pub(crate) fn render(&self, width: usize, colours: bool, out: &mut String) {
        let widths = self.widths(width);
        let titles = self
            .columns
            .iter()
            .map(|column| (column.title, colours.then_some(BOLD)));
        write_line(out, titles.zip(widths.iter().copied()));
        for row in &self.rows {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| (cell, wrap(&cell.text, *width)))
                .collect();
            let height = cells.iter().map(|(_, lines)| lines.len()).max().unwrap_or(1);
            for n in 0..height {
                let line = cells.iter().map(|(cell, lines)| {
                    let ansi = cell.tone.ansi().filter(|_| colours);
                    (lines.get(n).map_or("", String::as_str), ansi)
                });
                write_line(out, line.zip(widths.iter().copied()));
            }
        }
    }

    /// The width of each column: what its cells need, less what those that may wrap have to give, the last one first.
    fn widths(&self, limit: usize) -> Vec<usize> {
        let needed = |(n, column): (usize, &Column)| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(n))
                .map(|cell| length(&cell.text));
            cells.chain([length(column.title)]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(needed).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        let mut surplus = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        for (column, width) in self.columns.iter().zip(&mut widths).rev() {
            if let Flow::Wrap(least) = column.flow {
                let given = surplus.min(width.saturating_sub(least.max(length(column.title))));
                *width -= given;
                surplus -= given;
            }
        }
        widths
    }
}

/// One line of cells, each padded to its width, the last one not.
fn write_line<'a>(out: &mut String, cells: impl Iterator<Item = ((&'a str, Option<&'static str>), usize)>) {
    let start = out.len();
    for ((text, ansi), width) in cells {
        match ansi.filter(|_| !text.is_empty()) {
            Some(ansi) => out.extend([ansi, text, RESET]),
            None => out.push_str(text),
        }
        out.extend(iter::repeat_n(' ', width.saturating_sub(length(text)) + GAP.len()));
    }
    out.truncate(start + out.get(start..).map_or(0, |line| line.trim_end_matches(' ').len()));
    out.push('\n');
}

/// Breaks at spaces, else behind `-`, `/` or `,`, else anywhere.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.chars().collect();
    while rest.len() > width {
        // A space right behind the line is as good a place as one inside.
        let line = rest.get(..=width).unwrap_or(&rest);
        let space = line.iter().rposition(|c| *c == ' ').filter(|at| *at > 0);
        let behind = || {
            let inside = line.get(..line.len() - 1).unwrap_or(line);
            inside
                .iter()
                .rposition(|c| matches!(c, '-' | '/' | ','))
                .map(|at| at + 1)
        };
        let end = space.or_else(behind).unwrap_or(width);
        lines.push(rest.drain(..end).collect::<String>());
        let spaces = rest.iter().take_while(|c| **c == ' ').count();
        rest.drain(..spaces);
    }
    lines.push(rest.into_iter().collect());
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(table: &Table, width: usize, colours: bool) -> String {
        let mut text = String::new();
        table.render(width, colours, &mut text);
        text
    }

    fn sample() -> Table {
        let mut table = Table::new([("A", Flow::Fixed), ("HOLDER", Flow::Wrap(8)), ("WHY", Flow::Wrap(10))]);
        table.row(["1", "default/train-0", "two words more than fit"].map(Cell::from));
        table.row([Cell::from("22"), Cell::from(""), Cell::toned("bad", Tone::Bad)]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines =
            "A   HOLDER           WHY\n1   default/train-0  two words more than fit\n22  -                bad\n";
        assert_eq!(rendered(&sample(), 100, false), lines);
    }

    #[test]
    fn a_table_that_is_too_wide_goes_on_in_the_next_line() {
        let lines = "\
A   HOLDER     WHY
1   default/   two words
    train-0    more than
               fit
22  -          bad
";
        let text = rendered(&sample(), 25, false);
        assert_eq!(text, lines);
        assert!(text.lines().all(|line| line.len() <= 25));
        let wider = rendered(&sample(), 38, false);
        assert!(
            wider.contains("1   default/train-0  two words more\n                     than fit\n"),
            "{wider}"
        );
    }

    #[test]
    fn what_cannot_give_way_is_left_whole() {
        let text = rendered(&sample(), 5, false);
        assert!(text.contains("default/  two words"), "{text}");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = rendered(&sample(), 25, true);
        assert!(coloured.contains("\x1b[31mbad\x1b[0m"), "{coloured:?}");
        let bare = [BOLD, RESET, "\x1b[31m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        let trimmed: Vec<_> = bare.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n") + "\n", rendered(&sample(), 25, false));
    }

    #[test]
    fn a_word_without_a_place_to_break_is_broken_anyway() {
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("a b", 1), ["a", "b"]);
    }
}
