//! Reads what a container uses and may use from its cgroups: v1, v2, hybrid.
//!
//! A controller belongs to one hierarchy at a time, so it is read from the one that has it. A cgroup that vanishes
//! midway leaves fields out; so does a file that this kernel or layout does not have. What is there and cannot be read
//! is told as [`Unread`].

mod ceilings;
mod files;
mod hugetlb;
mod io;
mod psi;
mod rates;
mod sampler;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::path::PathBuf;

pub use self::{
    rates::{Rates, Reading},
    sampler::{Row, SCHEMA, Sample, Sampled, Sampler},
};

use self::{ceilings::Ceilings, files::Files};
use super::Hierarchy;
use crate::model::resources::{
    Cpu, Memory, MemoryAbove, MemoryLimit, Pids, PidsAbove, PidsLimit, Pressure, Resources, Unread,
};

/// What to read. Each part costs system calls, and `memory` makes the kernel sum up counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Usage, working set, own and effective limit, events.
    pub memory: bool,
    /// Usage, quota, throttling.
    pub cpu: bool,
    pub pids: bool,
    /// What was read and written.
    pub io: bool,
    pub cpuset: bool,
    pub hugetlb: bool,
    pub pressure: bool,
    /// Of the parts above also what is only worth knowing on a page about one container: peak, soft and swap limits,
    /// user and system time, shares or weight, limits by device.
    pub details: bool,
}

impl Parts {
    pub const ALL: Parts = Parts {
        memory: true,
        cpu: true,
        pids: true,
        io: true,
        cpuset: true,
        hugetlb: true,
        pressure: true,
        details: true,
    };
    /// What changes by itself, with the limits that it is measured against.
    pub const USAGE: Parts = Parts { cpuset: false, hugetlb: false, details: false, ..Parts::ALL };
    /// What a list of containers shows.
    pub const LIST: Parts = Parts { io: false, pressure: false, ..Parts::USAGE };
}

/// Reads everything about one container, given its (hierarchy, path) pairs as in /proc/PID/cgroup. The root of a
/// hierarchy (`/`) is nobody's own and is not read.
pub fn read(hierarchies: &[Hierarchy], cgroups: &[(u32, String)]) -> (Resources, Vec<Unread>) {
    Reader::new(hierarchies).read(cgroups, Parts::ALL)
}

/// Reads many containers, again and again.
#[derive(Debug)]
pub struct Reader {
    v1: Vec<Tree>,
    v2: Option<Tree>,
    /// What v1 hierarchies have.
    taken: Controllers,
    files: Files,
    memory_ceilings: Ceilings,
    pids_ceilings: Ceilings,
    page_sizes: Vec<hugetlb::Size>,
}

/// A hierarchy and the controllers that it has.
#[derive(Debug)]
struct Tree {
    id: u32,
    mount: PathBuf,
    has: Controllers,
}

#[derive(Clone, Copy, Debug, Default)]
struct Controllers {
    memory: bool,
    cpu: bool,
    cpuacct: bool,
    pids: bool,
    io: bool,
    cpuset: bool,
    hugetlb: bool,
}

impl Controllers {
    const ALL: Controllers = Controllers {
        memory: true,
        cpu: true,
        cpuacct: true,
        pids: true,
        io: true,
        cpuset: true,
        hugetlb: true,
    };

    fn add(&mut self, name: &str) {
        match name {
            "memory" => self.memory = true,
            "cpu" => self.cpu = true,
            "cpuacct" => self.cpuacct = true,
            "pids" => self.pids = true,
            "io" | "blkio" => self.io = true,
            "cpuset" => self.cpuset = true,
            "hugetlb" => self.hugetlb = true,
            _ => {}
        }
    }
}

impl Reader {
    /// For the hierarchies of this machine, as [`super::hierarchies`] finds them.
    pub fn new(hierarchies: &[Hierarchy]) -> Self {
        let mut files = Files::default();
        let (mut v1, mut v2) = (Vec::new(), None);
        let mut taken = Controllers::default();
        for hierarchy in hierarchies {
            let (id, mount) = (hierarchy.id, hierarchy.mount.clone());
            let mut has = Controllers::default();
            if hierarchy.id == 0 {
                // Without that file (which is as old as v2) every one is tried.
                let listed = files.enter(&mount, "/")
                    && files.text("cgroup.controllers").is_some_and(|listed| {
                        listed.split_ascii_whitespace().for_each(|name| has.add(name));
                        true
                    });
                v2 = Some(Tree { id, mount, has: if listed { has } else { Controllers::ALL } });
                continue;
            }
            for name in &hierarchy.controllers {
                has.add(name);
                taken.add(name);
            }
            v1.push(Tree { id, mount, has });
        }
        Reader {
            v1,
            v2,
            taken,
            files,
            memory_ceilings: Ceilings::default(),
            pids_ceilings: Ceilings::default(),
            page_sizes: Vec::new(),
        }
    }

    /// Keeps at most so many files open from round to round, which makes reads several times cheaper; a container has
    /// about 17 for [`Parts::USAGE`]. Mind the limit on open files. 0, the default, keeps none.
    #[must_use]
    pub fn keep_open(mut self, files: usize) -> Self {
        self.files.keep_open(files);
        self
    }

    /// Forgets the limits of cgroups above containers, which are read once for all that share them. To be called
    /// before each round of reads, which is what reads all containers once.
    pub fn new_round(&mut self) {
        self.forget_limits_above();
        self.files.new_round();
    }

    /// The same within a round, for reads of a few containers between rounds: files of the others stay open.
    pub fn forget_limits_above(&mut self) {
        self.memory_ceilings.forget();
        self.pids_ceilings.forget();
    }

    /// Reads these parts of one container, given its (hierarchy, path) pairs as in /proc/PID/cgroup.
    pub fn read(&mut self, cgroups: &[(u32, String)], parts: Parts) -> (Resources, Vec<Unread>) {
        let mut found = Resources::default();
        let mut cpu = Cpu::default();
        for tree in &self.v1 {
            let Some(path) = path_in(cgroups, tree.id) else { continue };
            let wanted = (parts.memory && tree.has.memory)
                || (parts.cpu && (tree.has.cpu || tree.has.cpuacct))
                || (parts.pids && tree.has.pids)
                || (parts.io && tree.has.io)
                || (parts.cpuset && tree.has.cpuset)
                || (parts.hugetlb && tree.has.hugetlb);
            if !wanted || !self.files.enter(&tree.mount, path) {
                continue;
            }
            if parts.cpu && tree.has.cpu {
                v1::cpu(&mut self.files, &mut cpu, parts.details);
            }
            if parts.cpu && tree.has.cpuacct {
                v1::cpuacct(&mut self.files, &mut cpu, parts.details);
            }
            if parts.io && tree.has.io {
                found.io = v1::blkio(&mut self.files, parts.details);
            }
            if parts.cpuset && tree.has.cpuset {
                found.cpuset = v1::cpuset(&mut self.files);
            }
            if parts.hugetlb && tree.has.hugetlb {
                found.hugetlb = hugetlb::read(&mut self.files, hugetlb::V1, &mut self.page_sizes);
            }
            let pids = if parts.pids && tree.has.pids { v2::pids(&mut self.files) } else { None };
            let memory = if parts.memory && tree.has.memory {
                v1::memory(&mut self.files, parts.details)
            } else {
                None
            };
            // The tightest limits last: they are looked for in other directories.
            if let Some(mut pids) = pids {
                pids_limits(&mut pids, &mut self.pids_ceilings, &mut self.files, tree, path);
                found.pids = Some(pids);
            }
            if let Some(v1::MemoryRead { mut memory, hierarchical }) = memory {
                let at_least = hierarchical.map_or(0, |limit| limit.at().unwrap_or(u64::MAX));
                memory_limits(
                    &mut memory,
                    &mut self.memory_ceilings,
                    &mut self.files,
                    (tree, path),
                    ceilings::MEMORY_V1,
                    at_least,
                );
                found.memory = Some(memory);
            }
        }
        if let Some(tree) = &self.v2
            && let Some(path) = path_in(cgroups, tree.id)
            && self.files.enter(&tree.mount, path)
        {
            let ours = |wanted: bool, has: bool, taken: bool| wanted && has && !taken;
            let (has, taken) = (tree.has, self.taken);
            let bandwidth = ours(parts.cpu, has.cpu, taken.cpu);
            if bandwidth || (parts.cpu && cpu.usage_us.is_none()) {
                v2::cpu(&mut self.files, &mut cpu, bandwidth, parts.details);
            }
            if ours(parts.io, has.io, taken.io) {
                found.io = v2::io(&mut self.files, parts.details);
            }
            if ours(parts.cpuset, has.cpuset, taken.cpuset) {
                found.cpuset = v2::cpuset(&mut self.files);
            }
            if ours(parts.hugetlb, has.hugetlb, taken.hugetlb) {
                found.hugetlb = hugetlb::read(&mut self.files, hugetlb::V2, &mut self.page_sizes);
            }
            if parts.pressure {
                found.pressure = psi::read(&mut self.files).filter(|read| *read != Pressure::default());
            }
            let pids = if ours(parts.pids, has.pids, taken.pids) { v2::pids(&mut self.files) } else { None };
            let memory = if ours(parts.memory, has.memory, taken.memory) {
                v2::memory(&mut self.files, parts.details)
            } else {
                None
            };
            if let Some(mut pids) = pids {
                pids_limits(&mut pids, &mut self.pids_ceilings, &mut self.files, tree, path);
                found.pids = Some(pids);
            }
            if let Some(mut memory) = memory {
                memory_limits(
                    &mut memory,
                    &mut self.memory_ceilings,
                    &mut self.files,
                    (tree, path),
                    ceilings::MEMORY_V2,
                    0,
                );
                found.memory = Some(memory);
            }
        }
        if let Some(memory) = &mut found.memory {
            memory.working_set_bytes = working_set(memory);
        }
        found.cpu = (cpu != Cpu::default()).then_some(cpu);
        (found, std::mem::take(&mut self.files.unread))
    }
}

/// Its own cgroup in a hierarchy.
fn path_in(cgroups: &[(u32, String)], hierarchy: u32) -> Option<&str> {
    let (_, path) = cgroups.iter().find(|(id, _)| *id == hierarchy)?;
    (path.bytes().any(|b| b != b'/')).then_some(path)
}

/// Limits below `at_least` do not bind.
fn memory_limits(
    memory: &mut Memory,
    ceilings: &mut Ceilings,
    files: &mut Files,
    (tree, path): (&Tree, &str),
    of: ceilings::LimitFiles,
    at_least: u64,
) {
    let found = ceilings.look(files, &tree.mount, path, of, memory.limit_bytes, at_least);
    memory.effective_limit =
        found.tightest.map(|(bytes, path)| MemoryLimit { bytes, path, hierarchy: tree.id });
    memory.above = found.fullest.map(|(above, path)| MemoryAbove {
        usage_bytes: above.usage,
        limit_bytes: above.limit,
        hits: above.hits,
        path,
        hierarchy: tree.id,
    });
}

fn pids_limits(pids: &mut Pids, ceilings: &mut Ceilings, files: &mut Files, tree: &Tree, path: &str) {
    let found = ceilings.look(files, &tree.mount, path, ceilings::PIDS, pids.max, 0);
    pids.effective_max = found.tightest.map(|(max, path)| PidsLimit { max, path, hierarchy: tree.id });
    pids.above = found.fullest.map(|(above, path)| PidsAbove {
        current: above.usage,
        max: above.limit,
        path,
        hierarchy: tree.id,
    });
}

/// What the docker CLI computes (calculateMemUsageUnixNoCache): usage less total_inactive_file (v1) or inactive_file
/// (v2), and usage itself where that would leave nothing.
fn working_set(memory: &Memory) -> Option<u64> {
    let (usage, inactive) = (memory.usage_bytes?, memory.inactive_file_bytes?);
    Some(if inactive < usage { usage - inactive } else { usage })
}
