//! Controllers of the v2 hierarchy (Documentation/admin-guide/cgroup-v2.rst). Each function reads the cgroup that
//! `files` is in, and is `None` when the controller is not enabled for it.

use super::{
    files::{Files, Limit, ReadError, limit, number},
    io,
};
use crate::model::resources::{Cpu, Cpuset, Io, Memory, MemoryEvents, Pids};

pub(super) fn memory(files: &mut Files, details: bool) -> Option<Memory> {
    let mut memory = Memory { usage_bytes: files.number("memory.current"), ..Memory::default() };
    if files.absent() {
        return None;
    }
    memory.limit_bytes = files.limit("memory.max").and_then(Limit::at);
    files.keyed("memory.stat", |key, value| match key {
        "file" => memory.file_bytes = Some(value),
        // The docker CLI takes the same field.
        "inactive_file" => memory.inactive_file_bytes = Some(value),
        _ => {}
    });
    let mut events = MemoryEvents::default();
    let read = files.keyed("memory.events", |key, value| match key {
        "low" => events.low = Some(value),
        "high" => events.high = Some(value),
        "max" => events.max = Some(value),
        "oom" => events.oom = Some(value),
        "oom_kill" => events.oom_kill = Some(value),
        "oom_group_kill" => events.oom_group_kill = Some(value),
        _ => {}
    });
    memory.events = (read || events != MemoryEvents::default()).then_some(events);
    memory.high_bytes = files.limit("memory.high").and_then(Limit::at);
    memory.swap_usage_bytes = files.number("memory.swap.current");
    if details {
        // 0 is the default and protects nothing.
        memory.low_bytes = files.limit("memory.low").and_then(Limit::at).filter(|low| *low != 0);
        memory.swap_limit_bytes = files.limit("memory.swap.max").and_then(Limit::at);
        memory.peak_bytes = files.number("memory.peak");
    }
    Some(memory)
}

/// cpu.stat is there without the controller too, and then tells usage alone. What v1 has told already stays.
pub(super) fn cpu(files: &mut Files, cpu: &mut Cpu, bandwidth: bool, details: bool) {
    let keep = |field: &mut Option<u64>, value| {
        field.get_or_insert(value);
    };
    files.keyed("cpu.stat", |key, value| match key {
        "usage_usec" => keep(&mut cpu.usage_us, value),
        "user_usec" => keep(&mut cpu.user_us, value),
        "system_usec" => keep(&mut cpu.system_us, value),
        "nr_periods" => keep(&mut cpu.nr_periods, value),
        "nr_throttled" => keep(&mut cpu.nr_throttled, value),
        "throttled_usec" => keep(&mut cpu.throttled_us, value),
        _ => {}
    });
    if !bandwidth || files.absent() {
        return;
    }
    if let Some((Limit::At(quota), period)) = files.parse("cpu.max", bandwidth_limit) {
        cpu.quota_us = Some(quota);
        cpu.period_us = Some(period);
    }
    if details {
        cpu.weight = files.number("cpu.weight");
    }
}

/// `max 100000`: quota and period, us.
fn bandwidth_limit(text: &str) -> Result<(Limit, u64), ReadError> {
    let (quota, period) = text.split_once(' ').ok_or(ReadError::UnknownFormat)?;
    Ok((limit(quota)?, number(period)?))
}

/// The same files in v1 and v2.
pub(super) fn pids(files: &mut Files) -> Option<Pids> {
    let mut pids = Pids { current: files.number("pids.current"), ..Pids::default() };
    if files.absent() {
        return None;
    }
    pids.max = files.limit("pids.max").and_then(Limit::at);
    files.keyed("pids.events", |key, value| {
        if key == "max" {
            pids.events_max = Some(value);
        }
    });
    Some(pids)
}

pub(super) fn io(files: &mut Files, details: bool) -> Option<Io> {
    let stat = files.parse("io.stat", io::stat);
    if files.absent() {
        return None;
    }
    let mut io = stat.unwrap_or_default();
    if details {
        io.limits = files.parse("io.max", io::max).unwrap_or_default();
    }
    Some(io)
}

pub(super) fn cpuset(files: &mut Files) -> Option<Cpuset> {
    let effective_cpus = files.parse("cpuset.cpus.effective", list).flatten();
    if files.absent() {
        return None;
    }
    Some(Cpuset {
        cpus: files.parse("cpuset.cpus", list).flatten(),
        mems: files.parse("cpuset.mems", list).flatten(),
        effective_cpus,
        effective_mems: files.parse("cpuset.mems.effective", list).flatten(),
    })
}

/// `0-3,8`; an empty one is none.
pub(super) fn list(text: &str) -> Result<Option<String>, ReadError> {
    let text = text.trim_ascii_end();
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b',') {
        return Err(ReadError::UnknownFormat);
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
