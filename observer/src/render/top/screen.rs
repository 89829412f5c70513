//! The screen: what is selected, sorted by and filtered, and how it is drawn. It is drawn whole each time, and ratatui
//! sends the terminal only the cells that differ.

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState},
};

use super::columns::{self, COLUMNS, Column, DISPENSABLE};
use crate::{
    host::resources::{Sample, Sampled},
    render::{Colours, PATH, Untrusted},
};

/// What a key asks the caller for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Draw,
    Quit,
}

/// Longer than any name.
const MAX_FILTER: usize = 64;
/// Rows that a page key moves by.
const PAGE: isize = 10;

/// The state of the screen.
#[derive(Debug)]
pub struct Screen {
    colours: Colours,
    /// Seconds between samples, for the title.
    interval_seconds: f64,
    sort: Column,
    reverse: bool,
    filter: String,
    /// Keys go into the filter.
    editing: bool,
    help: bool,
    /// Id of the selected container: the selection stays with it when the order changes.
    selected: Option<String>,
    table: TableState,
}

impl Screen {
    pub fn new(colours: Colours, interval_seconds: f64) -> Self {
        Screen {
            colours,
            interval_seconds,
            sort: Column::Cpu,
            reverse: false,
            filter: String::new(),
            editing: false,
            help: false,
            selected: None,
            table: TableState::new(),
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, sample: &Sample) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            // The terminal sends it as a key now, not as a signal.
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Step::Quit } else { Step::Draw };
        }
        if self.editing {
            self.edit(key.code);
            return Step::Draw;
        }
        if self.help {
            self.help = false;
            return Step::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('j') | KeyCode::Down => self.move_by(1, sample),
            KeyCode::Char('k') | KeyCode::Up => self.move_by(-1, sample),
            KeyCode::PageDown => self.move_by(PAGE, sample),
            KeyCode::PageUp => self.move_by(-PAGE, sample),
            KeyCode::Char('g') | KeyCode::Home => self.move_by(isize::MIN, sample),
            KeyCode::Char('G') | KeyCode::End => self.move_by(isize::MAX, sample),
            KeyCode::Char('s' | '>' | 'l') | KeyCode::Right => self.sort_by_next(1),
            KeyCode::Char('S' | '<' | 'h') | KeyCode::Left => self.sort_by_next(COLUMNS.len() - 1),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.editing = true,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Esc => {
                self.filter.clear();
                self.selected = None;
            }
            _ => {}
        }
        Step::Draw
    }

    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.editing = false,
            KeyCode::Esc => {
                self.editing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
    }

    fn sort_by_next(&mut self, steps: usize) {
        let at = COLUMNS.iter().position(|column| *column == self.sort).unwrap_or_default();
        if let Some(column) = COLUMNS.get((at + steps) % COLUMNS.len()) {
            self.sort = *column;
        }
    }

    fn move_by(&mut self, steps: isize, sample: &Sample) {
        let rows = self.rows(sample);
        let Some(last) = rows.len().checked_sub(1) else { return };
        let to = match self.selected_at(&rows) {
            Some(at) => at.saturating_add_signed(steps).min(last),
            // The first key selects the row at the end that it comes from.
            None if steps == isize::MAX => last,
            None => 0,
        };
        self.selected = rows.get(to).map(|row| row.id.clone());
    }

    fn selected_at(&self, rows: &[&Sampled]) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        rows.iter().position(|row| row.id == *selected)
    }

    /// What is shown, in order.
    fn rows<'a>(&self, sample: &'a Sample) -> Vec<&'a Sampled> {
        let filter = self.filter.to_lowercase();
        let shown = |row: &&Sampled| {
            filter.is_empty()
                || row.name.as_ref().is_some_and(|name| name.to_lowercase().contains(&filter))
                || row.id.starts_with(&filter)
        };
        let mut rows: Vec<_> = sample.containers.iter().filter(shown).collect();
        columns::sort(&mut rows, self.sort, self.reverse);
        rows
    }

    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>, sample: &Sample) {
        let rows = self.rows(sample);
        let [title, table, detail, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.title(sample, rows.len()), title);
        let selected = self.selected_at(&rows);
        self.table.select(selected);
        let (widget, hidden) = self.table(&rows, table.width);
        frame.render_stateful_widget(widget, table, &mut self.table);
        let selected = selected.and_then(|at| rows.get(at));
        frame.render_widget(self.detail(selected.copied(), sample), detail);
        frame.render_widget(self.bottom(hidden), bottom);
        if self.help {
            help(frame);
        }
    }

    fn title(&self, sample: &Sample, shown: usize) -> Line<'static> {
        let all = sample.containers.len();
        let count = match (shown == all, all) {
            (true, 1) => "1 container".to_owned(),
            (true, _) => format!("{all} containers"),
            (false, _) => format!("{shown} of {all} containers"),
        };
        let time = sample.time.get(11..19).unwrap_or_default();
        let mut text =
            format!("observer top  {}Z  {count}  every {} s", Untrusted(time, 8), self.interval_seconds);
        if !self.filter.is_empty() && !self.editing {
            text.push_str(&format!("  filter: {}", Untrusted(&self.filter, MAX_FILTER)));
        }
        Line::styled(text, self.style(Modifier::BOLD))
    }

    /// With the number of columns that the terminal has no room for.
    fn table(&self, rows: &[&Sampled], width: u16) -> (Table<'static>, usize) {
        let mut columns = COLUMNS.to_vec();
        for column in DISPENSABLE {
            let needed: u16 = columns.iter().map(|column| column.width() + 1).sum();
            if needed <= width + 1 {
                break;
            }
            // What is sorted by stays in sight.
            if column != self.sort {
                columns.retain(|it| *it != column);
            }
        }
        let hidden = COLUMNS.len() - columns.len();
        let others: u16 = columns.iter().skip(1).map(|column| column.width() + 1).sum();
        let name = width.saturating_sub(others).max(Column::Name.width());
        let width_of = |column: Column| if column == Column::Name { name } else { column.width() };

        let header = columns.iter().map(|column| {
            let mark = match (*column == self.sort, column.is_number() != self.reverse) {
                (false, _) => "",
                (true, true) => "▼",
                (true, false) => "▲",
            };
            // The mark takes the place of what does not fit.
            let room = usize::from(width_of(*column)).saturating_sub(usize::from(!mark.is_empty()));
            aligned(format!("{}{mark}", cut(column.title(), room)), *column)
        });
        let header = Row::new(header).style(self.style(Modifier::REVERSED));
        let body = rows.iter().map(|row| {
            Row::new(columns.iter().map(|column| {
                let text = cut(&column.text(row), usize::from(width_of(*column)));
                aligned(text, *column).style(self.warn(*column, row))
            }))
        });
        let widths = columns.iter().map(|column| Constraint::Length(width_of(*column)));
        let table = Table::new(body, widths)
            .header(header)
            .column_spacing(1)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        (table, hidden)
    }

    /// What the selected row has no column for; else what could not be read.
    fn detail(&self, selected: Option<&Sampled>, sample: &Sample) -> Line<'static> {
        if let Some(row) = selected {
            let mut text = Untrusted(&row.id, PATH).to_string();
            if let Some(limit) =
                row.resources.memory.as_ref().and_then(|memory| memory.effective_limit.as_ref())
            {
                let bytes = columns::size(Some(limit.bytes));
                text.push_str(&format!("  memory limit {bytes} at {}", Untrusted(&limit.path, PATH)));
            }
            return Line::raw(text);
        }
        match sample.unread.as_slice() {
            [] => Line::default(),
            [first, rest @ ..] => {
                let more =
                    if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                let (what, why) = (Untrusted(&first.what, PATH), Untrusted(&first.why, PATH));
                Line::styled(format!("could not read {what}: {why}{more}"), self.colour(Color::Yellow))
            }
        }
    }

    fn bottom(&self, hidden: usize) -> Line<'static> {
        if self.editing {
            return Line::raw(format!("filter: {}_", Untrusted(&self.filter, MAX_FILTER)));
        }
        let mut text = "q quit  ↑↓ select  ←→ sort  r reverse  / filter  ? help".to_owned();
        if hidden > 0 {
            let columns = if hidden == 1 { "column" } else { "columns" };
            text.push_str(&format!("  ({hidden} {columns} hidden)"));
        }
        Line::styled(text, self.style(Modifier::DIM))
    }

    /// How much a value deserves to be looked at.
    fn warn(&self, column: Column, row: &Sampled) -> Style {
        const NEAR: f64 = 80.0;
        const AT: f64 = 95.0;
        let share = match column {
            Column::Memory | Column::MemoryPercent => columns::memory_percent(row),
            Column::Pids => columns::pids_percent(row),
            Column::Throttled => {
                row.rates.throttled_percent.map(|share| if share > 0.0 { NEAR } else { 0.0 })
            }
            Column::OomKills => columns::oom_kills(row).map(|kills| if kills > 0 { AT } else { 0.0 }),
            _ => None,
        };
        match share {
            Some(share) if share >= AT => self.colour(Color::Red),
            Some(share) if share >= NEAR => self.colour(Color::Yellow),
            _ => Style::new(),
        }
    }

    fn colour(&self, colour: Color) -> Style {
        if self.colours.on { Style::new().fg(colour) } else { Style::new() }
    }

    fn style(&self, modifier: Modifier) -> Style {
        Style::new().add_modifier(modifier)
    }
}

fn aligned(text: String, column: Column) -> Cell<'static> {
    let alignment = if column.is_number() { Alignment::Right } else { Alignment::Left };
    Cell::new(Line::raw(text).alignment(alignment))
}

/// As much of a text as fits; what is cut ends in an ellipsis.
fn cut(text: &str, columns: usize) -> String {
    if super::columns_of(text) <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut room = columns.saturating_sub(1);
    for c in text.chars() {
        let width = Span::raw(c.to_string()).width();
        if width > room {
            break;
        }
        room -= width;
        kept.push(c);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

const HELP: [&str; 12] = [
    "↑ ↓  j k          select a container",
    "PgUp PgDn  g G    by pages, to the ends",
    "← →  h l  < >  S s  sort by another column",
    "r                 reverse the order",
    "/                 filter by part of a name, or start of an id",
    "Esc               clear filter and selection",
    "q  Ctrl-C         quit",
    "",
    "CPU % is of one CPU. Memory is what docker stats",
    "shows, its limit the tightest up the tree. PRESSURE:",
    "share of the last 10 s in which something waited",
    "for cpu / memory / io.",
];

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (66.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let text: Vec<_> = HELP.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" any key closes this ")), place);
}
