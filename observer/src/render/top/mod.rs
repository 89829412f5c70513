//! `observer top`: what a sample of all containers looks like, as a screen that is drawn anew and as a plain table.

mod columns;
mod screen;
#[cfg(test)]
mod tests;

pub use columns::Column;
pub use screen::{Screen, Step};

use ratatui::text::Span;

use self::columns::COLUMNS;
use crate::host::resources::Sample;

/// One table, for pipes: nothing is cut, sorted by CPU.
pub fn table(sample: &Sample) -> String {
    let mut rows: Vec<_> = sample.containers.iter().collect();
    columns::sort(&mut rows, Column::Cpu, false);
    let mut lines = vec![COLUMNS.map(|column| column.title().to_owned())];
    lines.extend(rows.iter().map(|row| COLUMNS.map(|column| column.text(row))));
    let mut widths = COLUMNS.map(|_| 0);
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(columns_of(cell));
        }
    }
    let mut text = String::new();
    for line in &lines {
        let start = text.len();
        for ((column, width), cell) in COLUMNS.iter().zip(widths).zip(line) {
            let gap = " ".repeat(width - columns_of(cell).min(width));
            if text.len() > start {
                text.push_str("  ");
            }
            if column.is_number() {
                text.push_str(&gap);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&gap);
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// How many columns of a terminal a text takes.
fn columns_of(text: &str) -> usize {
    Span::raw(text).width()
}
