//! What a terminal shows, as a picture: the bytes of a program go through a terminal emulator, and its cells become
//! runs of text in an SVG.

use std::fmt::Write as _;
use std::num::NonZero;

/// Of the picture, in its own units: one cell, the room around all cells, and the bar with the title.
const CELL: (f64, f64) = (8.0, 18.0);
const MARGIN: f64 = 14.0;
const BAR: f64 = 30.0;
const BACKGROUND: &str = "#15181e";
const FOREGROUND: &str = "#d6dae0";
/// The sixteen colours that programs name by number; what they look like is the terminal's choice.
const PALETTE: [&str; 16] = [
    "#2b303b", "#e5626c", "#93c379", "#e3bd76", "#69aef0", "#c27fdb", "#5ab8c4", "#d6dae0", "#6b7280",
    "#ff7b85", "#a9d98f", "#f4cf8a", "#85c1fb", "#d798ee", "#74d0dc", "#ffffff",
];

/// A terminal of a given size after it has been sent these bytes.
pub struct Screen {
    parser: vt100::Parser,
    /// Of the emulated terminal, those that are shown.
    rows: Vec<u16>,
    columns: u16,
}

/// How a run of cells looks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    foreground: String,
    background: Option<String>,
    bold: bool,
    faint: bool,
    underlined: bool,
}

impl Screen {
    pub fn of(bytes: &[u8], rows: u16, columns: u16) -> Self {
        let mut parser = vt100::Parser::new(size(rows), size(columns), 0);
        parser.process(bytes);
        Self { parser, rows: (0..rows).collect(), columns }
    }

    /// Its lines, without blanks at their ends, up to the last that has anything.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.rows.iter().map(|row| self.text(*row)).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Only those lines that are wanted, by their text and number.
    pub fn where_lines(mut self, wanted: impl Fn(&str, usize) -> bool) -> Self {
        let rows = std::mem::take(&mut self.rows);
        self.rows = rows
            .into_iter()
            .enumerate()
            .filter(|(at, row)| wanted(&self.text(*row), *at))
            .map(|(_, row)| row)
            .collect();
        self
    }

    fn text(&self, row: u16) -> String {
        let line: String = (0..self.columns).map(|column| self.contents(row, column)).collect();
        line.trim_end().to_owned()
    }

    /// What stands in a cell; a blank where nothing does, nothing in the second half of a wide character.
    fn contents(&self, row: u16, column: u16) -> String {
        let Some(cell) = self.parser.screen().cell(row, column) else { return " ".to_owned() };
        match cell.contents() {
            _ if cell.is_wide_continuation() => String::new(),
            "" => " ".to_owned(),
            text => text.to_owned(),
        }
    }

    fn look(&self, row: u16, column: u16) -> Option<Look> {
        let cell = self.parser.screen().cell(row, column)?;
        let (mut foreground, mut background) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
        if cell.inverse() {
            (foreground, background) = (
                Some(background.unwrap_or_else(|| BACKGROUND.to_owned())),
                Some(foreground.unwrap_or_else(|| FOREGROUND.to_owned())),
            );
        }
        Some(Look {
            foreground: foreground.unwrap_or_else(|| FOREGROUND.to_owned()),
            background,
            bold: cell.bold(),
            faint: cell.dim(),
            underlined: cell.underline(),
        })
    }

    /// The picture of its first lines, under a title. Every run says how long it is, so that columns stay in line
    /// whatever font there is.
    pub fn svg(&self, title: &str) -> String {
        let lines = self.lines().len();
        let (width, height) =
            (f64::from(self.columns) * CELL.0 + 2.0 * MARGIN, lines as f64 * CELL.1 + BAR + 2.0 * MARGIN);
        let title = escaped(title);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\">\n<title>{title}</title>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
             <g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"13\">\n\
             <text x=\"{MARGIN}\" y=\"{}\" fill=\"#6b7280\">$ <tspan fill=\"{FOREGROUND}\">{title}</tspan></text>\n",
            BAR - 6.0
        );
        for (at, row) in self.rows.iter().take(lines).enumerate() {
            self.line(*row, BAR + MARGIN + at as f64 * CELL.1, &mut svg);
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }

    fn line(&self, row: u16, top: f64, svg: &mut String) {
        let mut column = 0;
        while column < self.columns {
            let Some(look) = self.look(row, column) else { break };
            let from = column;
            while column < self.columns && self.look(row, column).as_ref() == Some(&look) {
                column += 1;
            }
            let at = |column: u16| MARGIN + f64::from(column) * CELL.0;
            if let Some(background) = &look.background {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill=\"{background}\"/>",
                    at(from),
                    at(column) - at(from),
                    CELL.1
                );
            }
            for (first, last, text) in self.pieces(row, from, column) {
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\"{}>{}</text>",
                    at(first),
                    top + 13.0,
                    at(last) - at(first),
                    look.foreground,
                    look.attributes(),
                    escaped(&text)
                );
            }
        }
    }

    /// What stands in these cells, without blanks but single ones between words: each piece with its first cell and the one
    /// behind it. So no picture rests on how a viewer treats blanks.
    fn pieces(&self, row: u16, from: u16, to: u16) -> Vec<(u16, u16, String)> {
        let mut pieces: Vec<(u16, u16, String)> = Vec::new();
        for column in from..to {
            let text = self.contents(row, column);
            match pieces.last_mut() {
                _ if text == " " => {}
                // Where nothing lies between, or one blank.
                Some((_, end, piece)) if column - *end <= 1 => {
                    if column > *end {
                        piece.push(' ');
                    }
                    piece.push_str(&text);
                    *end = column + 1;
                }
                _ => pieces.push((column, column + 1, text)),
            }
        }
        pieces
    }
}

impl Look {
    fn attributes(&self) -> String {
        [
            (self.bold, " font-weight=\"bold\""),
            (self.faint, " opacity=\"0.6\""),
            (self.underlined, " text-decoration=\"underline\""),
        ]
        .into_iter()
        .filter_map(|(is, attribute)| is.then_some(attribute))
        .collect()
    }
}

/// Callers name sizes by constants.
fn size(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("a terminal has cells")
}

fn colour(colour: vt100::Color) -> Option<String> {
    match colour {
        vt100::Color::Default => None,
        vt100::Color::Idx(index) => Some(indexed(index)),
        vt100::Color::Rgb(r, g, b) => Some(format!("#{r:02x}{g:02x}{b:02x}")),
    }
}

/// The 256 colours of xterm: 16 of the palette, a cube of 6 x 6 x 6, and 24 greys.
fn indexed(index: u8) -> String {
    match index {
        0..16 => PALETTE.get(usize::from(index)).copied().unwrap_or(FOREGROUND).to_owned(),
        16..232 => {
            let level = |part: u8| if part == 0 { 0 } else { 55 + 40 * part };
            let cube = index - 16;
            format!("#{:02x}{:02x}{:02x}", level(cube / 36), level(cube / 6 % 6), level(cube % 6))
        }
        232.. => {
            let grey = 8 + 10 * (index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no place for them, escaped or not.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// What a picture says: its title, and every piece of text, in their order. Not an SVG is an error.
pub fn words(svg: &str) -> Result<Vec<String>, String> {
    let document = roxmltree::Document::parse(svg).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if root.tag_name().name() != "svg" || root.tag_name().namespace() != Some("http://www.w3.org/2000/svg") {
        return Err(format!("its root is {:?}", root.tag_name()));
    }
    let texts = root.descendants().filter(|node| ["title", "text"].contains(&node.tag_name().name()));
    Ok(texts
        .map(|node| node.descendants().filter_map(|it| it.is_text().then(|| it.text()).flatten()).collect())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_becomes_a_picture() {
        let bytes = "a <b> & \"c\"\r\n\u{1b}[1;31mred\u{1b}[0m \u{1b}[7minverse\u{1b}[0m  \u{1b}[2mfaint\u{1b}[0m\r\n\u{1b}[38;5;196mcube\u{1b}[0m 日本 x"
            .as_bytes();
        let screen = Screen::of(bytes, 10, 40);
        assert_eq!(screen.lines(), ["a <b> & \"c\"", "red inverse  faint", "cube 日本 x"]);
        let svg = screen.svg("observer <x>");
        let said = words(&svg).expect("an SVG");
        assert_eq!(
            said,
            ["observer <x>", "$ observer <x>", "a <b> & \"c\"", "red", "inverse", "faint", "cube", "日本 x"]
        );
        for part in [
            "fill=\"#e5626c\" font-weight=\"bold\">red<",
            // Inverse: the colours change places.
            &format!("fill=\"{FOREGROUND}\"/>"),
            &format!("fill=\"{BACKGROUND}\">inverse<"),
            "opacity=\"0.6\">faint<",
            "fill=\"#ff0000\">cube<",
            // Six cells, though four characters.
            "textLength=\"48\" lengthAdjust=\"spacingAndGlyphs\" fill=\"#d6dae0\">日本 x<",
        ] {
            assert!(svg.contains(part), "{part} is missing:\n{svg}");
        }
    }

    #[test]
    fn what_a_terminal_undoes_is_not_shown() {
        let screen = Screen::of(b"old\x1b[2J\x1b[Hnew\x1b[3;1Hthird", 5, 20);
        assert_eq!(screen.lines(), ["new", "", "third"]);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for bad in [
            "",
            "<svg>",
            "<html/>",
            "<svg/>",
            "<svg xmlns=\"http://www.w3.org/2000/svg\"><text>&x;</text></svg>",
        ] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
