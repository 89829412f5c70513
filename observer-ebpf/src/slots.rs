//! Slots: which cgroup belongs to which container, known in the kernel before userspace has heard of it.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid, macros::map, maps::HashMap};
use observer_common::{CgroupKey, Inodes, Loss, NS_MNT, NS_PID, NS_USER, SLOT_MASK, SlotInfo, class, mark};

use crate::{
    emit::{self, Frame},
    offsets::{Place, follow, load, offset},
    task::{self, Task},
};

/// Every cgroup seen, by hierarchy and id, with its slot.
#[map]
static CGROUPS: HashMap<CgroupKey, u64> = HashMap::with_max_entries(65536, 0);

/// What userspace found a slot to be; written by the agent only.
#[map]
static SLOTS: HashMap<u64, SlotInfo> = HashMap::with_max_entries(65536, 0);

/// Slots of namespaces that are a container without a cgroup, by the inode of the pid (else user) namespace.
#[map]
static NAMESPACES: HashMap<u32, u64> = HashMap::with_max_entries(16384, 0);

#[inline(always)]
fn info(slot: u64) -> Option<&'static SlotInfo> {
    // SAFETY: entries are written by the agent, whole, and only their class and canonical slot are read.
    unsafe { SLOTS.get(slot) }
}

#[inline(always)]
pub fn is_host(slot: u64) -> bool {
    slot != 0 && info(slot).is_some_and(|info| info.class == class::HOST)
}

#[inline(always)]
pub fn is_container(slot: u64) -> bool {
    slot != 0 && info(slot).is_some_and(|info| info.class == class::CONTAINER)
}

/// The container's first slot, where userspace has told that several belong together.
#[inline(always)]
pub fn canonical(slot: u64) -> u64 {
    match info(slot) {
        Some(info) if info.canonical != 0 => info.canonical,
        _ => slot,
    }
}

/// The first slot of the container that a slot belongs to, itself while nobody has said more of it; `None` if it is the
/// host's. One look-up.
#[inline(always)]
pub fn of_container(slot: u64) -> Option<u64> {
    match info(slot) {
        Some(info) if info.class == class::HOST => None,
        Some(info) if info.canonical != 0 => Some(info.canonical),
        _ => Some(slot),
    }
}

/// What is known of a slot to those who audit calls: one of the following, else the index under which its container's calls are
/// kept. No enum: of those that have a field, the compiler copies it whether it was set or not, which the verifier refuses.
pub type Standing = u32;
/// Nothing yet.
pub const UNKNOWN: Standing = 0;
/// Not a container's.
pub const HOSTS: Standing = u32::MAX;
/// A container's for which there was no room, or one on its way in.
pub const UNAUDITED: Standing = u32::MAX - 1;

#[inline(always)]
pub fn standing(slot: u64) -> Standing {
    match info(slot) {
        None => UNKNOWN,
        Some(info) if info.class == class::HOST => HOSTS,
        Some(info) if info.audit != 0 => info.audit,
        Some(_) => UNAUDITED,
    }
}

/// The same of a cgroup's slot; the host's if it has none.
#[inline(always)]
pub fn standing_of(key: CgroupKey) -> Standing {
    match slot_of(key) {
        0 => HOSTS,
        slot => standing(slot),
    }
}

#[inline(always)]
pub fn is_audited(standing: Standing) -> bool {
    standing != UNKNOWN && standing < UNAUDITED
}

/// A pointer to a cgroup that the verifier knows as one.
#[derive(Clone, Copy)]
pub struct Cgroup(pub Place);

impl Cgroup {
    #[inline(always)]
    pub fn id(self) -> u64 {
        // SAFETY: cgroup.kn points to a kernfs_node, whose id is a u64.
        unsafe { load(follow(self.0, offset!(cgroup_kn)), offset!(kn_id)) }
    }
    #[inline(always)]
    pub fn hierarchy(self) -> u32 {
        // SAFETY: cgroup.root points to a cgroup_root, whose hierarchy_id is an int.
        unsafe { load(follow(self.0, offset!(cgroup_root)), offset!(root_hierarchy)) }
    }
    #[inline(always)]
    pub fn level(self) -> u32 {
        // SAFETY: cgroup.level is an int.
        unsafe { load(self.0, offset!(cgroup_level)) }
    }
    #[inline(always)]
    pub fn key(self) -> CgroupKey {
        CgroupKey { hierarchy: self.hierarchy(), reserved: 0, id: self.id() }
    }
    #[inline(always)]
    pub fn parent(self) -> Cgroup {
        // SAFETY: cgroup.self is a cgroup_subsys_state, whose parent points to one, whose cgroup points to a cgroup.
        Cgroup(unsafe { follow(follow(self.0, offset!(cgroup_parent_css)), offset!(css_cgroup)) })
    }
}

/// What a task's controllers have it in.
#[derive(Clone, Copy)]
pub struct CssSet(Place);

impl CssSet {
    #[inline(always)]
    pub fn of(task: Task) -> Self {
        // SAFETY: task_struct.cgroups points to a css_set.
        CssSet(unsafe { follow(task.0, offset!(task_cgroups)) })
    }
    /// The v2 cgroup.
    #[inline(always)]
    pub fn v2(self) -> Cgroup {
        // SAFETY: css_set.dfl_cgrp points to a cgroup.
        Cgroup(unsafe { follow(self.0, offset!(css_set_dfl)) })
    }
    #[inline(always)]
    fn controlled(self, subsys: usize) -> Cgroup {
        // SAFETY: css_set.subsys is an array of pointers; the index is a constant to the verifier.
        Cgroup(unsafe { follow(follow(self.0, offset!(css_set_subsys) + subsys * 8), offset!(css_cgroup)) })
    }
    /// The cgroup of the pids controller: of a v1 hierarchy or of v2.
    #[inline(always)]
    pub fn pids(self) -> Cgroup {
        self.controlled(offset!(pids_subsys))
    }
    #[inline(always)]
    pub fn memory(self) -> Cgroup {
        self.controlled(offset!(memory_subsys))
    }
}

#[inline(always)]
fn slot_of(key: CgroupKey) -> u64 {
    // SAFETY: values are single words.
    unsafe { CGROUPS.get(key) }.copied().unwrap_or(0)
}

/// A cgroup's slot, 0 for none or the host's.
#[inline(always)]
pub fn of_cgroup(key: CgroupKey) -> u64 {
    let slot = slot_of(key);
    if is_host(slot) { 0 } else { slot }
}

/// The mark that the cgroups of the frame's task give it: it is older than the agent, or its mark could not be
/// written. With the host's mount namespace it counts as on its way into the container; one that had escaped before
/// the agent started is found by the start-up scan, which marks it.
#[inline(always)]
pub fn mark_by_cgroups(frame: &Frame) -> u64 {
    let slot = of_frame(frame);
    if slot == 0 {
        return 0;
    }
    // SAFETY: the header lies in the scratch frame.
    let mnt = unsafe { (*frame.header()).inodes[NS_MNT] };
    if task::host().is_none_or(|host| host.inodes[NS_MNT] == mnt) { slot | mark::ENTERING } else { slot }
}

/// The slot of the cgroups that the frame's task is in, the first that has one.
#[inline(always)]
fn of_frame(frame: &Frame) -> u64 {
    let [v2, pids, memory] = frame.cgroups();
    let slot = of_cgroup(v2);
    if slot != 0 {
        return slot;
    }
    let slot = of_cgroup(pids);
    if slot != 0 {
        return slot;
    }
    of_cgroup(memory)
}

/// Gives a new cgroup its slot: its parent's if that belongs to a container, or if the maker itself carries it
/// (the container may be so new that userspace has not yet named it); else a new one.
#[inline(always)]
pub fn adopt(key: CgroupKey, parent: CgroupKey, frame: Option<&Frame>) -> u64 {
    let above = slot_of(parent);
    let inherited = above != 0 && !is_host(above) && {
        let maker = task::mark((bpf_get_current_pid_tgid() >> 32) as u32) & SLOT_MASK;
        is_container(above) || maker != 0 && canonical(maker) == canonical(above)
    };
    let slot = match frame {
        _ if inherited => above,
        Some(frame) => frame.new_slot(),
        // Nobody hears of the cgroup either; its loss is counted.
        None => return 0,
    };
    match CGROUPS.insert(key, slot, BPF_NOEXIST as u64) {
        Ok(()) => slot,
        // The agent's walk of the hierarchies came first.
        Err(-17) => slot_of(key),
        Err(_) => {
            emit::count_loss(Loss::TableFull);
            slot
        }
    }
}

/// Forgets a removed cgroup; returns the slot it had.
#[inline(always)]
pub fn forget(key: CgroupKey) -> u64 {
    let slot = slot_of(key);
    let _ = CGROUPS.remove(key);
    slot
}

/// True if such namespaces make a container although no cgroup says so: a pid namespace of its own, or a user
/// and a mount namespace. (A service with PrivateTmp has only the latter.)
#[inline(always)]
fn is_own_world(inodes: *const Inodes) -> Option<u32> {
    let host = task::host()?;
    // SAFETY: the caller's tuple lies in a scratch frame.
    let (pid, user, mnt) = unsafe { ((*inodes)[NS_PID], (*inodes)[NS_USER], (*inodes)[NS_MNT]) };
    if pid != 0 && pid != host.inodes[NS_PID] {
        Some(pid)
    } else if user != host.inodes[NS_USER] && mnt != host.inodes[NS_MNT] && user != 0 && mnt != 0 {
        Some(user)
    } else {
        None
    }
}

/// The slot of the container that these namespaces are, made if it is new; 0 if they are none.
#[inline(always)]
pub fn of_namespaces(frame: &Frame) -> u64 {
    // SAFETY: the header lies in the scratch frame.
    let inodes = unsafe { &raw const (*frame.header()).inodes };
    let Some(key) = is_own_world(inodes) else { return 0 };
    // SAFETY: values are single words.
    if let Some(slot) = unsafe { NAMESPACES.get(key) } {
        // A host process that went into a container's namespaces is no container of its own.
        return if is_host(*slot) { 0 } else { *slot };
    }
    let slot = frame.new_slot();
    match NAMESPACES.insert(key, slot, BPF_NOEXIST as u64) {
        Ok(()) => slot,
        // SAFETY: values are single words.
        Err(-17) => unsafe { NAMESPACES.get(key) }.copied().unwrap_or(slot),
        Err(_) => {
            emit::count_loss(Loss::TableFull);
            slot
        }
    }
}

/// A pid or user namespace was just made: whatever had its inode number before is gone.
#[inline(always)]
pub fn forget_namespace(inode: u32) {
    let _ = NAMESPACES.remove(inode);
}
