//! What can be shown of a container, and sorted by.

use std::cmp::Ordering;

use crate::{
    host::resources::Sampled,
    model::resources::{Memory, Stall},
    render::{NAME, SHORT_ID, Untrusted, words},
};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Name,
    Id,
    Runtime,
    Cpu,
    Throttled,
    Memory,
    MemoryPercent,
    Pids,
    Io,
    OomKills,
    Pressure,
}

/// All of them, from left to right.
pub(super) const COLUMNS: [Column; 11] = [
    Column::Name,
    Column::Id,
    Column::Runtime,
    Column::Cpu,
    Column::Throttled,
    Column::Memory,
    Column::MemoryPercent,
    Column::Pids,
    Column::Io,
    Column::OomKills,
    Column::Pressure,
];

/// The order in which they give way on a narrow terminal. What is not here stays.
pub(super) const DISPENSABLE: [Column; 8] = [
    Column::Id,
    Column::Runtime,
    Column::Io,
    Column::Pressure,
    Column::Throttled,
    Column::OomKills,
    Column::Pids,
    Column::MemoryPercent,
];

/// What stands for a thing that is not known or does not exist.
const NONE: &str = "-";

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Column::Name => "NAME",
            Column::Id => "ID",
            Column::Runtime => "RUNTIME",
            Column::Cpu => "CPU %",
            Column::Throttled => "THROT %",
            Column::Memory => "MEM USAGE / LIMIT",
            Column::MemoryPercent => "MEM %",
            Column::Pids => "PIDS / MAX",
            Column::Io => "IO R / W PER S",
            Column::OomKills => "OOM",
            Column::Pressure => "PRESSURE C/M/I",
        }
    }

    /// Columns of the terminal; the name takes what is left.
    pub(super) fn width(self) -> u16 {
        match self {
            Column::Name => 15,
            Column::Id => 13,
            Column::Runtime => 14,
            Column::Cpu => 8,
            Column::Throttled => 8,
            Column::Memory => 19,
            Column::MemoryPercent => 7,
            Column::Pids => 12,
            Column::Io => 19,
            Column::OomKills => 5,
            Column::Pressure => 17,
        }
    }

    /// Numbers stand at the right, and are sorted from the greatest.
    pub(super) fn is_number(self) -> bool {
        !matches!(self, Column::Name | Column::Id | Column::Runtime)
    }

    /// What stands in it, harmless for a terminal.
    pub(super) fn text(self, row: &Sampled) -> String {
        let resources = &row.resources;
        match self {
            Column::Name => match &row.name {
                Some(name) => Untrusted(name, NAME).to_string(),
                None => id(row),
            },
            Column::Id => id(row),
            Column::Runtime => Untrusted(&row.runtime, NAME).to_string(),
            Column::Cpu => percent(row.rates.cpu_percent),
            Column::Throttled => percent(row.rates.throttled_percent),
            Column::Memory => {
                let memory = resources.memory.as_ref();
                format!("{} / {}", size(memory.and_then(usage)), size(memory.and_then(limit)))
            }
            Column::MemoryPercent => percent(memory_percent(row)),
            Column::Pids => {
                let pids = resources.pids.as_ref();
                let max = pids.and_then(|pids| pids.effective_max.as_ref()).map(|limit| limit.max);
                format!("{} / {}", count(pids.and_then(|pids| pids.current)), count(max))
            }
            Column::Io => {
                let per_second = |rate: Option<f64>| size(rate.map(|rate| rate as u64));
                format!(
                    "{} / {}",
                    per_second(row.rates.read_bytes_per_second),
                    per_second(row.rates.written_bytes_per_second)
                )
            }
            Column::OomKills => count(oom_kills(row)),
            Column::Pressure => match &resources.pressure {
                None => NONE.to_owned(),
                Some(pressure) => [&pressure.cpu, &pressure.memory, &pressure.io]
                    .map(|stall| {
                        some_avg10(stall.as_ref()).map_or(NONE.to_owned(), |share| format!("{share:.1}"))
                    })
                    .join("/"),
            },
        }
    }

    fn key(self, row: &Sampled) -> Key<'_> {
        let resources = &row.resources;
        match self {
            Column::Name => Key::Text(row.name.as_deref().unwrap_or(&row.id)),
            Column::Id => Key::Text(&row.id),
            Column::Runtime => Key::Text(&row.runtime),
            Column::Cpu => Key::Number(row.rates.cpu_percent),
            Column::Throttled => Key::Number(row.rates.throttled_percent),
            Column::Memory => Key::Number(resources.memory.as_ref().and_then(usage).map(|it| it as f64)),
            Column::MemoryPercent => Key::Number(memory_percent(row)),
            Column::Pids => {
                Key::Number(resources.pids.as_ref().and_then(|pids| pids.current).map(|it| it as f64))
            }
            Column::Io => {
                let (read, written) = (row.rates.read_bytes_per_second, row.rates.written_bytes_per_second);
                Key::Number(match (read, written) {
                    (None, None) => None,
                    (read, written) => Some(read.unwrap_or_default() + written.unwrap_or_default()),
                })
            }
            Column::OomKills => Key::Number(oom_kills(row).map(|it| it as f64)),
            // What hurts most.
            Column::Pressure => Key::Number(resources.pressure.as_ref().and_then(|pressure| {
                let all = [&pressure.cpu, &pressure.memory, &pressure.io];
                all.into_iter().filter_map(|stall| some_avg10(stall.as_ref())).max_by(f64::total_cmp)
            })),
        }
    }
}

enum Key<'a> {
    Text(&'a str),
    Number(Option<f64>),
}

/// Numbers from the greatest and texts from A, or the other way round; what is not known last, and equal ones by name
/// and id, so that rows do not change places without a reason.
pub(super) fn sort(rows: &mut [&Sampled], column: Column, reverse: bool) {
    let direction = |order: Ordering| if reverse { order.reverse() } else { order };
    rows.sort_by(|a, b| {
        let order = match (column.key(a), column.key(b)) {
            (Key::Text(a), Key::Text(b)) => direction(a.cmp(b)),
            (Key::Number(Some(a)), Key::Number(Some(b))) => direction(b.total_cmp(&a)),
            (Key::Number(a), Key::Number(b)) => b.is_some().cmp(&a.is_some()),
            _ => Ordering::Equal,
        };
        order.then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id))
    });
}

fn id(row: &Sampled) -> String {
    // `ns-4026532001` says nothing when cut.
    let bound = if row.id.starts_with("ns-") { NAME } else { SHORT_ID };
    let end = row.id.char_indices().nth(bound).map_or(row.id.len(), |(at, _)| at);
    Untrusted(row.id.get(..end).unwrap_or_default(), NAME).to_string()
}

/// As `docker stats` has it.
fn usage(memory: &Memory) -> Option<u64> {
    memory.working_set_bytes.or(memory.usage_bytes)
}

fn limit(memory: &Memory) -> Option<u64> {
    memory.effective_limit.as_ref().map(|limit| limit.bytes)
}

/// Of what it may use; without a limit there is none to speak of.
pub(super) fn memory_percent(row: &Sampled) -> Option<f64> {
    let memory = row.resources.memory.as_ref()?;
    let (usage, limit) = (usage(memory)?, limit(memory)?);
    (limit > 0).then(|| usage as f64 / limit as f64 * 100.0)
}

/// Of the tasks that it may have.
pub(super) fn pids_percent(row: &Sampled) -> Option<f64> {
    let pids = row.resources.pids.as_ref()?;
    let (current, max) = (pids.current?, pids.effective_max.as_ref()?.max);
    (max > 0).then(|| current as f64 / max as f64 * 100.0)
}

pub(super) fn oom_kills(row: &Sampled) -> Option<u64> {
    row.resources.memory.as_ref()?.events.as_ref()?.oom_kill
}

fn some_avg10(stall: Option<&Stall>) -> Option<f64> {
    Some(stall?.some.as_ref()?.avg10_percent)
}

fn percent(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), |value| format!("{value:.2}"))
}

fn count(value: Option<u64>) -> String {
    value.map_or(NONE.to_owned(), |value| value.to_string())
}

pub(super) fn size(bytes: Option<u64>) -> String {
    bytes.map_or(NONE.to_owned(), words::bytes)
}
