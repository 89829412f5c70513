//! Tables for a terminal, or for a pipe: columns as wide as what stands in them. On a terminal, lines are kept from
//! running over its edge by cutting or wrapping the columns that say so; in a pipe, nothing is lost.

use std::{
    fmt::Write as _,
    io::IsTerminal,
    os::fd::{AsFd, BorrowedFd},
};

use unicode_width::UnicodeWidthChar;

use super::{Colours, Untrusted};
use crate::model::Severity;

/// Where a table goes: what decides about its width and its colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// Columns of the terminal; `None` in a pipe or a file, where lines have no end.
    pub width: Option<usize>,
    pub colours: Colours,
}

impl Surface {
    /// A pipe or a file.
    pub const PLAIN: Surface = Surface { width: None, colours: Colours::OFF };

    /// What this stream is. A terminal that does not tell its size counts as 80 columns wide.
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Surface {
        Surface {
            width: stream.is_terminal().then(|| columns(stream.as_fd()).unwrap_or(80)),
            colours: Colours::of(stream),
        }
    }
}

/// What the terminal says; one without a size (a serial line) says 0.
fn columns(terminal: BorrowedFd<'_>) -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(terminal)?;
    Some(usize::from(width.0)).filter(|width| *width > 0)
}

/// What becomes of a column for which the terminal has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Stays as wide as it is.
    Whole,
    /// Ends in an ellipsis.
    Cut,
    /// Goes on in the next line.
    Wrap,
}

/// A column: its heading, and how its cells are placed.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    right: bool,
    fit: Fit,
}

impl Column {
    /// Text.
    pub const fn left(heading: &'static str) -> Column {
        Column { heading, right: false, fit: Fit::Whole }
    }

    /// Numbers.
    pub const fn right(heading: &'static str) -> Column {
        Column { heading, right: true, fit: Fit::Whole }
    }

    /// Its cells may be cut on a terminal that is too narrow.
    pub const fn cut(mut self) -> Column {
        self.fit = Fit::Cut;
        self
    }

    /// Its cells may go on in further lines on a terminal that is too narrow.
    pub const fn wrap(mut self) -> Column {
        self.fit = Fit::Wrap;
        self
    }
}

/// How a cell stands out, where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emphasis {
    None,
    Strong,
    Faint,
    Severity(Severity),
}

/// What stands in one row of a column. Empty text is shown as `-`, so that each line has as many words as there are
/// columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Escaped.
    text: String,
    emphasis: Emphasis,
}

impl Cell {
    /// Bound of a cell in characters; who needs a shorter one hands over [`Untrusted`].
    const LONGEST: usize = 4096;

    fn new(text: &str, emphasis: Emphasis) -> Cell {
        let text = if text.is_empty() { "-".to_owned() } else { Untrusted(text, Cell::LONGEST).to_string() };
        Cell { text, emphasis }
    }

    pub fn strong(text: impl AsRef<str>) -> Cell {
        Cell::new(text.as_ref(), Emphasis::Strong)
    }

    pub fn faint(text: impl AsRef<str>) -> Cell {
        Cell::new(text.as_ref(), Emphasis::Faint)
    }

    /// In the colour that alerts of this severity have.
    pub fn severity(text: impl AsRef<str>, severity: Severity) -> Cell {
        Cell::new(text.as_ref(), Emphasis::Severity(severity))
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text.as_ref(), Emphasis::None)
    }
}

/// A table under construction.
#[derive(Clone, Debug)]
pub struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(columns: [Column; N]) -> Table<N> {
        Table { columns, rows: Vec::new() }
    }

    pub fn row(&mut self, cells: [Cell; N]) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The heading and all rows, each with a line end.
    pub fn render(&self, surface: Surface) -> String {
        let widths = self.widths(surface.width);
        let mut text = String::new();
        let headings = self.columns.map(|column| Cell::strong(column.heading));
        for row in std::iter::once(&headings).chain(&self.rows) {
            self.line(row, &widths, surface, &mut text);
        }
        text
    }

    /// Of each column. What is too much is taken from the widest of those that can give way.
    fn widths(&self, terminal: Option<usize>) -> [usize; N] {
        let least = self.columns.map(|column| width(column.heading).max(NARROWEST));
        let mut widths = self.columns.map(|column| width(column.heading));
        for row in &self.rows {
            for (width_so_far, cell) in widths.iter_mut().zip(row) {
                *width_so_far = (*width_so_far).max(width(&cell.text));
            }
        }
        let Some(terminal) = terminal else { return widths };
        let gaps = GAP * N.saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > terminal {
            let gives = |(i, width): &(usize, &mut usize)| {
                self.columns.get(*i).is_some_and(|column| column.fit != Fit::Whole)
                    && least.get(*i).is_some_and(|least| **width > *least)
            };
            let widest = widths.iter_mut().enumerate().filter(gives).max_by_key(|(_, width)| **width);
            let Some((_, width)) = widest else { break };
            *width -= 1;
        }
        widths
    }

    /// A row: one line, or as many as its longest wrapped cell needs.
    fn line(&self, row: &[Cell; N], widths: &[usize; N], surface: Surface, text: &mut String) {
        let mut parts: Vec<std::vec::IntoIter<String>> = Vec::with_capacity(N);
        for ((column, cell), width) in self.columns.iter().zip(row).zip(widths) {
            let lines = match column.fit {
                Fit::Whole => vec![cell.text.clone()],
                Fit::Cut => vec![cut(&cell.text, *width)],
                Fit::Wrap => wrap(&cell.text, *width),
            };
            parts.push(lines.into_iter());
        }
        let height = parts.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        for _ in 0..height {
            // Blanks owed to the next thing that is written: none are left at a line's end.
            let mut owed = 0;
            for (i, ((column, cell), (part, column_width))) in
                self.columns.iter().zip(row).zip(parts.iter_mut().zip(widths)).enumerate()
            {
                if i > 0 {
                    owed += GAP;
                }
                let part = part.next().unwrap_or_default();
                let room = column_width.saturating_sub(width(&part));
                if part.is_empty() {
                    owed += room;
                    continue;
                }
                if column.right {
                    owed += room;
                }
                let style = match cell.emphasis {
                    Emphasis::None => anstyle::Style::new(),
                    Emphasis::Strong => surface.colours.strong(),
                    Emphasis::Faint => surface.colours.faint(),
                    Emphasis::Severity(severity) => surface.colours.severity(severity),
                };
                let _ = write!(text, "{:owed$}{style}{part}{style:#}", "");
                owed = if column.right { 0 } else { room };
            }
            text.push('\n');
        }
    }
}

/// Blanks between columns.
const GAP: usize = 2;

/// A column that gives way does so down to this width, or its heading's: less says nothing.
const NARROWEST: usize = 8;

/// Columns that a text takes on a terminal.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The text, with an ellipsis for what is beyond so many columns.
fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let (start, _) = split(text, room.saturating_sub(1));
    format!("{}…", start.trim_end())
}

/// As many characters as fit into so many columns, and the rest.
fn split(text: &str, room: usize) -> (&str, &str) {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += char_width(*c);
        used > room
    });
    text.split_at_checked(end.map_or(text.len(), |(at, _)| at)).unwrap_or((text, ""))
}

/// Lines of at most so many columns, broken at blanks, and within a word only if it alone is too long.
fn wrap(text: &str, room: usize) -> Vec<String> {
    if width(text) <= room {
        return vec![text.to_owned()];
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for mut word in text.split(' ') {
        if !line.is_empty() && width(&line) + 1 + width(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        while width(word) > room {
            let (start, rest) = split(word, room);
            // Not even one character fits: it stands alone rather than never.
            if start.is_empty() {
                break;
            }
            lines.push(start.to_owned());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(width: usize) -> Surface {
        Surface { width: Some(width), colours: Colours::OFF }
    }

    fn sample() -> Table<3> {
        let mut table =
            Table::new([Column::left("NAME").cut(), Column::right("PIDS"), Column::left("WHY").wrap()]);
        table.row(["web".into(), "7".into(), "nothing".into()]);
        table.row(["a-database-of-long-name".into(), "12345".into(), "it has no limit of memory".into()]);
        table
    }

    #[test]
    fn a_pipe_gets_everything_in_columns() {
        assert_eq!(
            sample().render(Surface::PLAIN),
            "NAME                      PIDS  WHY\n\
             web                          7  nothing\n\
             a-database-of-long-name  12345  it has no limit of memory\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_and_wraps_what_may_be() {
        assert_eq!(
            sample().render(on(40)),
            "NAME               PIDS  WHY\n\
             web                   7  nothing\n\
             a-database-of-l…  12345  it has no limit\n\
             \u{20}                        of memory\n"
        );
        for width in 0..80 {
            let text = sample().render(on(width));
            let widest = text.lines().map(super::width).max().expect("lines");
            // 8 for each of the two that give way, 5 for the numbers, and the gaps.
            assert!(widest <= width.max(8 + 5 + 8 + 2 * GAP), "{width}: {text}");
            assert!(text.lines().all(|line| line == line.trim_end()), "{width}: {text}");
            assert!(text.contains("12345"), "{width}: numbers stay whole");
        }
    }

    #[test]
    fn columns_that_may_not_be_cut_are_not() {
        let mut table = Table::new([Column::left("ID"), Column::left("IMAGE")]);
        table.row(["3f2a9c1b0d4e".into(), "registry.example/app:1".into()]);
        assert_eq!(table.render(on(10)), table.render(Surface::PLAIN));
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out_and_bounded() {
        let mut table = Table::new([Column::left("NAME"), Column::left("X")]);
        table.row(["a\x1b[2Jb\nc".into(), "\u{202e}".into()]);
        table.row(["x".repeat(100_000).into(), "".into()]);
        let text = table.render(Surface { width: Some(80), colours: Colours::ON });
        assert!(text.contains(r"a\x1b[2Jb\nc") && text.contains(r"\u{202e}"), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(text.len() < 3 * 5000);
        assert!(text.lines().last().is_some_and(|line| line.ends_with("x…  -")));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new([Column::left("NAME").cut(), Column::left("N")]);
        table.row(["日本語".into(), "1".into()]);
        table.row(["ä".into(), "2".into()]);
        assert_eq!(table.render(Surface::PLAIN), "NAME    N\n日本語  1\nä       2\n");
        assert_eq!(cut("日本語日本語", 8), "日本語…");
        assert_eq!(cut("日本語日本語", 7), "日本語…");
        assert_eq!(cut("日本", 4), "日本");
        assert_eq!(cut("日本", 0), "…");
    }

    #[test]
    fn text_is_broken_at_blanks_and_long_words_within() {
        for (text, room, lines) in [
            ("", 4, &[""][..]),
            ("one two", 7, &["one two"]),
            ("one two", 6, &["one", "two"]),
            ("one two three", 8, &["one two", "three"]),
            ("/var/lib/x is", 5, &["/var/", "lib/x", "is"]),
            ("a /var/lib/x", 5, &["a", "/var/", "lib/x"]),
            ("日本語", 1, &["日本語"]),
            ("日本語", 3, &["日", "本", "語"]),
        ] {
            assert_eq!(wrap(text, room), lines, "{text} in {room}");
        }
    }

    #[test]
    fn colours_are_for_terminals_and_do_not_count_as_width() {
        let mut table = Table::new([Column::left("SEVERITY"), Column::right("N")]);
        table.row([Cell::severity("critical", Severity::Critical), Cell::faint("1")]);
        table.row([Cell::strong("x"), "22".into()]);
        let plain = "SEVERITY   N\ncritical   1\nx         22\n";
        assert_eq!(table.render(Surface::PLAIN), plain);
        let coloured = table.render(Surface { width: Some(80), colours: Colours::ON });
        assert!(coloured.contains("\x1b[1m\x1b[31mcritical\x1b[0m   "), "{coloured:?}");
        let mut stripped = String::new();
        let mut escape = false;
        for c in coloured.chars() {
            match (escape, c) {
                (false, '\x1b') => escape = true,
                (true, 'm') => escape = false,
                (true, _) => {}
                (false, c) => stripped.push(c),
            }
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert_eq!(Surface::of(&file), Surface::PLAIN);
    }
}
