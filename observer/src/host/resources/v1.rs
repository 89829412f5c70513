//! Controllers of v1 hierarchies (Documentation/admin-guide/cgroup-v1). Each function reads the cgroup that `files` is
//! in, and is `None` when the controller is not there.

use super::{
    files::{Files, Limit, ReadError, number},
    io,
};
use crate::model::{
    TICK_NS,
    resources::{Cpu, Cpuset, Io, Memory, MemoryEvents},
};

/// Whether memory is limited is asked in two ways: the cgroup's own limit, and what the kernel says binds it.
pub(super) struct MemoryRead {
    pub(super) memory: Memory,
    /// `hierarchical_memory_limit` of memory.stat: the tightest limit up the tree, where use_hierarchy is on (always,
    /// since Linux 5.11).
    pub(super) hierarchical: Option<Limit>,
}

pub(super) fn memory(files: &mut Files, details: bool) -> Option<MemoryRead> {
    let mut memory = Memory { usage_bytes: files.number("memory.usage_in_bytes"), ..Memory::default() };
    if files.absent() {
        return None;
    }
    memory.limit_bytes = files.limit("memory.limit_in_bytes").and_then(Limit::at);
    let mut hierarchical = None;
    files.keyed("memory.stat", |key, value| match key {
        // The totals include descendants, as usage does. The docker CLI takes the same field.
        "total_cache" => memory.file_bytes = Some(value),
        "total_inactive_file" => memory.inactive_file_bytes = Some(value),
        "total_swap" => memory.swap_usage_bytes = Some(value),
        "hierarchical_memory_limit" => hierarchical = Some(Limit::of(value)),
        _ => {}
    });
    memory.failcnt = files.number("memory.failcnt");
    let mut oom_kill = None;
    files.keyed("memory.oom_control", |key, value| {
        match key {
            "oom_kill" => oom_kill = Some(value),
            // Only where it is so: it is never so unless somebody asked for it.
            "under_oom" if value != 0 => memory.under_oom = Some(true),
            _ => {}
        }
    });
    memory.events = oom_kill.map(|kills| MemoryEvents { oom_kill: Some(kills), ..MemoryEvents::default() });
    if details {
        memory.low_bytes = files.limit("memory.soft_limit_in_bytes").and_then(Limit::at);
        memory.peak_bytes = files.number("memory.max_usage_in_bytes");
        memory.memory_and_swap_limit_bytes = files.limit("memory.memsw.limit_in_bytes").and_then(Limit::at);
        memory.swap_limit_bytes = memory
            .memory_and_swap_limit_bytes
            .map(|both| both.saturating_sub(memory.limit_bytes.unwrap_or_default()));
    }
    Some(MemoryRead { memory, hierarchical })
}

/// The cpu controller: bandwidth and shares.
pub(super) fn cpu(files: &mut Files, cpu: &mut Cpu, details: bool) {
    files.keyed("cpu.stat", |key, value| match key {
        "nr_periods" => cpu.nr_periods = Some(value),
        "nr_throttled" => cpu.nr_throttled = Some(value),
        "throttled_time" => cpu.throttled_us = Some(value / NS_PER_US),
        _ => {}
    });
    if files.absent() {
        return;
    }
    cpu.quota_us = files.parse("cpu.cfs_quota_us", quota).and_then(Limit::at);
    if cpu.quota_us.is_some() {
        cpu.period_us = files.number("cpu.cfs_period_us");
    }
    if details {
        cpu.shares = files.number("cpu.shares");
    }
}

const NS_PER_US: u64 = 1_000;

/// -1 is no quota.
fn quota(text: &str) -> Result<Limit, ReadError> {
    if text.trim_ascii_end() == "-1" { Ok(Limit::None) } else { number(text).map(Limit::At) }
}

/// The cpuacct controller: what was used.
pub(super) fn cpuacct(files: &mut Files, cpu: &mut Cpu, details: bool) {
    cpu.usage_us = files.number("cpuacct.usage").map(|ns| ns / NS_PER_US);
    if files.absent() || !details {
        return;
    }
    let us = |ticks: u64| Some(ticks.saturating_mul(TICK_NS / NS_PER_US));
    files.keyed("cpuacct.stat", |key, ticks| match key {
        "user" => cpu.user_us = us(ticks),
        "system" => cpu.system_us = us(ticks),
        _ => {}
    });
}

/// The throttling layer counts what every I/O scheduler lets through; `_recursive`, with descendants, since Linux 4.20.
pub(super) fn blkio(files: &mut Files, details: bool) -> Option<Io> {
    let mut bytes = files.parse("blkio.throttle.io_service_bytes_recursive", io::operations);
    let requests = if files.absent() {
        bytes = files.parse("blkio.throttle.io_service_bytes", io::operations);
        if files.absent() {
            return None;
        }
        files.parse("blkio.throttle.io_serviced", io::operations)
    } else {
        files.parse("blkio.throttle.io_serviced_recursive", io::operations)
    };
    let mut io = Io {
        read_bytes: bytes.map(|of| of.reads),
        written_bytes: bytes.map(|of| of.writes),
        reads: requests.map(|of| of.reads),
        writes: requests.map(|of| of.writes),
        limits: Vec::new(),
    };
    if details {
        for (file, field) in io::V1_LIMITS {
            if let Some(limits) = files.parse(file, io::device_limits) {
                io::add_limits(&mut io.limits, &limits, field);
            }
        }
    }
    Some(io)
}

pub(super) fn cpuset(files: &mut Files) -> Option<Cpuset> {
    let cpus = files.parse("cpuset.cpus", super::v2::list).flatten();
    if files.absent() {
        return None;
    }
    Some(Cpuset {
        cpus,
        mems: files.parse("cpuset.mems", super::v2::list).flatten(),
        effective_cpus: files.parse("cpuset.effective_cpus", super::v2::list).flatten(),
        effective_mems: files.parse("cpuset.effective_mems", super::v2::list).flatten(),
    })
}
