//! What the agent and the kernel programs share beside the frames: offsets, map keys and values.

use crate::{Inodes, assert_size};

/// Declares [`Offsets`] together with the list of what each field is read from, so that neither can be
/// forgotten: the agent resolves `path` in the running kernel's BTF and stores the sum of the offsets.
macro_rules! offsets {
    ($($ability:ident { $($(#[$doc:meta])* $field:ident = $($path:literal)+;)+ })+) => {
        /// Byte offsets (and a few numbers) of the running kernel, set as a read-only global before load: the
        /// verifier then sees constants, and `pointer + offset` is a direct, checked load.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Offsets { $($($(#[$doc])* pub $field: u64,)+)+ }

        /// For each field of [`Offsets`], in order.
        pub const OFFSET_SOURCES: &[OffsetSource] = &[$($(OffsetSource {
            field: stringify!($field),
            ability: ability::$ability,
            paths: &[$($path),+],
        },)+)+];
    };
}

/// Where one field of [`Offsets`] comes from.
#[derive(Clone, Copy, Debug)]
pub struct OffsetSource {
    pub field: &'static str,
    /// The [`ability`] that a kernel without it lacks.
    pub ability: u64,
    /// The members whose offsets are added up (`struct.member`, where its type matters `struct.member of TYPE`), the size of
    /// a type (`sizeof struct`), an enumerator (`enum name.enumerator`), or nothing more than that the first argument of a
    /// tracepoint is of a type or points to it (`argument btf_trace_NAME of TYPE`).
    pub paths: &'static [&'static str],
}

/// What the kernel programs can make use of here: the bits of their read-only global `ABILITIES`. The verifier takes
/// it for a constant and removes what stands behind a bit that is not set, so that a program that uses something
/// a kernel lacks still loads there, and does without.
pub mod ability {
    /// The fields without which there is nothing to see. No bit to test: the agent does not start without.
    pub const CORE: u64 = 1 << 0;
    /// Loads go straight through pointers that the verifier knows the types of, `bpf_get_current_task_btf` (5.11)
    /// among them; else by helper.
    pub const TYPED_LOADS: u64 = 1 << 1;
    /// `bpf_probe_read_kernel`, which lockdown=confidentiality refuses.
    pub const READ_KERNEL: u64 = 1 << 2;
    /// `bpf_task_pt_regs` (5.15).
    pub const TASK_REGS: u64 = 1 << 3;
    /// Where a task's saved registers lie on its stack, for kernels without that helper.
    pub const STACK_REGS: u64 = 1 << 4;
    /// Arguments in saved registers.
    pub const CALL_ARGUMENTS: u64 = 1 << 5;
    /// A task's own pid namespace (`pid_for_children` is always there), and its number in it.
    pub const PID_NAMESPACE: u64 = 1 << 6;
    pub const TIME_NAMESPACE: u64 = 1 << 7;
    pub const CGROUP_NAMESPACE: u64 = 1 << 8;
    /// The cgroups of the pids and the memory controller.
    pub const CGROUP_V1: u64 = 1 << 9;
    /// Whether a task's root is the host's.
    pub const ROOT: u64 = 1 << 10;
    /// Mount namespace, device and inode of a task's root.
    pub const ROOT_MOUNT: u64 = 1 << 11;
    /// Where a program's file name and arguments are.
    pub const PROGRAM: u64 = 1 << 12;
    /// `bpf_probe_read_user`: what a call's arguments point to.
    pub const READ_USER: u64 = 1 << 13;
    /// Second programs are on typed tracepoints, for what the first are skipped for.
    pub const TWICE_ON_TRACEPOINTS: u64 = 1 << 14;
    /// The same on functions.
    pub const TWICE_ON_FUNCTIONS: u64 = 1 << 15;
    /// A task's own credentials, whatever it has put on for a while.
    pub const OWN_CREDENTIALS: u64 = 1 << 16;
    /// `oom/mark_victim` hands over the victim itself (6.9) ...
    pub const VICTIM_TASK: u64 = 1 << 17;
    /// ... or only its thread id.
    pub const VICTIM_ID: u64 = 1 << 18;
    /// What a victim's standing with the OOM killer is.
    pub const VICTIM_SCORE: u64 = 1 << 19;
    /// How much memory a process has, in counters of which each CPU keeps a part (6.2) ...
    pub const RESIDENT: u64 = 1 << 20;
    /// ... or in plain ones.
    pub const RESIDENT_PLAIN: u64 = 1 << 21;
    /// The memory controller's counters and limits.
    pub const MEMORY_LIMITS: u64 = 1 << 22;
    /// The pids controller's.
    pub const PIDS_LIMITS: u64 = 1 << 23;
    /// The path of a task's root, from dentry to dentry and from mount to mount.
    pub const ROOT_PATH: u64 = 1 << 24;
    /// The number of a call in the saved registers, and whether it was a 32-bit one.
    pub const CALL_NUMBERS: u64 = 1 << 25;
    /// Whether a task has a seccomp filter, and how many.
    pub const SECCOMP_MODE: u64 = 1 << 26;
    /// No ability of the kernel's but a wish of the configuration: containers' calls are audited.
    pub const AUDIT_CALLS: u64 = 1 << 27;
    /// The same: denials by seccomp are counted.
    pub const AUDIT_SECCOMP: u64 = 1 << 28;
    /// Nothing to the kernel programs either: programs are attached to events of the perf layer after privileges were given up.
    pub const LATE_EVENTS: u64 = 1 << 29;
}

offsets! {
    CORE {
        task_tgid = "task_struct.tgid";
        task_pid = "task_struct.pid";
        task_flags = "task_struct.flags";
        task_exit_code = "task_struct.exit_code";
        task_real_parent = "task_struct.real_parent";
        task_group_leader = "task_struct.group_leader";
        task_start = "task_struct.start_boottime";
        task_cred = "task_struct.cred";
        task_nsproxy = "task_struct.nsproxy";
        task_cgroups = "task_struct.cgroups";
        task_signal = "task_struct.signal";
        task_comm = "task_struct.comm";
        signal_live = "signal_struct.live";
        cred_uid = "cred.uid";
        cred_gid = "cred.gid";
        cred_user_ns = "cred.user_ns";
        nsproxy_uts = "nsproxy.uts_ns";
        nsproxy_ipc = "nsproxy.ipc_ns";
        nsproxy_mnt = "nsproxy.mnt_ns";
        nsproxy_pid_for_children = "nsproxy.pid_ns_for_children";
        nsproxy_net = "nsproxy.net_ns";
        uts_inum = "uts_namespace.ns" "ns_common.inum";
        ipc_inum = "ipc_namespace.ns" "ns_common.inum";
        mnt_inum = "mnt_namespace.ns" "ns_common.inum";
        pid_inum = "pid_namespace.ns" "ns_common.inum";
        net_inum = "net.ns" "ns_common.inum";
        user_inum = "user_namespace.ns" "ns_common.inum";
        css_set_dfl = "css_set.dfl_cgrp";
        css_cgroup = "cgroup_subsys_state.cgroup";
        cgroup_parent_css = "cgroup.self" "cgroup_subsys_state.parent";
        cgroup_kn = "cgroup.kn";
        cgroup_root = "cgroup.root";
        cgroup_level = "cgroup.level";
        root_hierarchy = "cgroup_root.hierarchy_id";
        kn_id = "kernfs_node.id";
    }
    PID_NAMESPACE {
        task_thread_pid = "task_struct.thread_pid";
        pid_level = "pid.level";
        pid_numbers = "pid.numbers";
        upid_nr = "upid.nr";
        upid_ns = "upid.ns";
        upid_size = "sizeof upid";
    }
    TIME_NAMESPACE {
        nsproxy_time = "nsproxy.time_ns";
        nsproxy_time_for_children = "nsproxy.time_ns_for_children";
        time_inum = "time_namespace.ns" "ns_common.inum";
    }
    CGROUP_NAMESPACE {
        nsproxy_cgroup = "nsproxy.cgroup_ns";
        cgroup_inum = "cgroup_namespace.ns" "ns_common.inum";
    }
    CGROUP_V1 {
        css_set_subsys = "css_set.subsys";
        pids_subsys = "enum cgroup_subsys_id.pids_cgrp_id";
        memory_subsys = "enum cgroup_subsys_id.memory_cgrp_id";
    }
    ROOT {
        task_fs = "task_struct.fs";
        fs_root_mnt = "fs_struct.root" "path.mnt";
        vfsmount_root = "vfsmount.mnt_root";
    }
    ROOT_MOUNT {
        fs_root_dentry = "fs_struct.root" "path.dentry";
        vfsmount_sb = "vfsmount.mnt_sb";
        /// Where in `struct mount` its `vfsmount` is: the way back from one to the other.
        mount_vfsmount = "mount.mnt";
        mount_ns = "mount.mnt_ns";
        sb_dev = "super_block.s_dev";
        dentry_inode = "dentry.d_inode";
        inode_ino = "inode.i_ino";
    }
    ROOT_PATH {
        /// The root of a mount, as seen from the `mount` itself.
        mount_root = "mount.mnt" "vfsmount.mnt_root";
        /// The mount that it hangs in: the topmost is its own.
        mount_parent = "mount.mnt_parent";
        /// Where in that.
        mount_point = "mount.mnt_mountpoint";
        dentry_parent = "dentry.d_parent";
        dentry_name = "dentry.d_name" "qstr.name";
    }
    PROGRAM {
        task_mm = "task_struct.mm";
        mm_arg_start = "mm_struct.arg_start";
        mm_arg_end = "mm_struct.arg_end";
        bprm_filename = "linux_binprm.filename";
    }
    CALL_ARGUMENTS {
        regs_di = "pt_regs.di";
        regs_si = "pt_regs.si";
        regs_bx = "pt_regs.bx";
        regs_cx = "pt_regs.cx";
    }
    OWN_CREDENTIALS {
        task_real_cred = "task_struct.real_cred";
        task_execs = "task_struct.self_exec_id";
        cred_permitted = "cred.cap_permitted";
        cred_inheritable = "cred.cap_inheritable";
        cred_euid = "cred.euid";
        cred_effective = "cred.cap_effective";
        cred_bounding = "cred.cap_bset";
    }
    VICTIM_TASK {
        /// 0: what counts is that it is there.
        victim_task = "argument btf_trace_mark_victim of task_struct";
    }
    VICTIM_ID {
        /// As above.
        victim_id = "argument btf_trace_mark_victim of int";
    }
    VICTIM_SCORE {
        signal_oom_score_adj = "signal_struct.oom_score_adj";
    }
    RESIDENT {
        resident_mm = "task_struct.mm";
        resident = "mm_struct.rss_stat of percpu_counter" "percpu_counter.count";
        resident_size = "sizeof percpu_counter";
    }
    RESIDENT_PLAIN {
        resident_plain_mm = "task_struct.mm";
        resident_plain = "mm_struct.rss_stat of mm_rss_stat" "mm_rss_stat.count";
    }
    MEMORY_LIMITS {
        memory_css = "mem_cgroup.css";
        memory_memory = "mem_cgroup.memory";
        memory_memsw = "mem_cgroup.memsw";
        counter_usage = "page_counter.usage";
        counter_max = "page_counter.max";
        counter_parent = "page_counter.parent";
    }
    PIDS_LIMITS {
        pids_css = "pids_cgroup.css";
        pids_counter = "pids_cgroup.counter";
        pids_limit = "pids_cgroup.limit";
        css_parent = "cgroup_subsys_state.parent";
    }
    CALL_NUMBERS {
        regs_orig_ax = "pt_regs.orig_ax";
        task_status = "task_struct.thread_info" "thread_info.status";
    }
    SECCOMP_MODE {
        task_seccomp_mode = "task_struct.seccomp" "seccomp.mode";
        task_seccomp_filters = "task_struct.seccomp" "seccomp.filter_count";
        signal_flags = "signal_struct.flags";
    }
    STACK_REGS {
        task_stack = "task_struct.stack";
        regs_size = "sizeof pt_regs";
    }
}

/// Notes that the first programs leave for the second: entries are shared by threads whose ids differ by a multiple of
/// this, for which a note lives too briefly to matter.
pub const NOTES: u32 = 1 << 16;

/// Names one cgroup for its lifetime: ids are unique per hierarchy only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupKey {
    pub hierarchy: u32,
    pub reserved: u32,
    pub id: u64,
}

/// A slot stands for one cgroup until userspace says which container it belongs to; numbers are never used
/// again, so that a mark held by a process that outlives its container cannot be taken for another's.
pub const SLOT_BITS: u32 = 48;
pub const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
/// Kernel-made slots carry the CPU plus one above this bit; the agent's own carry [`SLOT_AGENT`].
pub const SLOT_CPU_SHIFT: u32 = 36;
/// ... and below it the scratch frame of the program that made them: each counts its own, without atomics.
pub const SLOT_FRAME_SHIFT: u32 = 34;
pub const SLOT_AGENT: u64 = 0xfff << SLOT_CPU_SHIFT;

/// Bits of a process's entry above the slot.
pub mod mark {
    use super::SLOT_BITS;
    pub const ENTERING: u64 = 1 << SLOT_BITS;
    pub const MOVED: u64 = 1 << (SLOT_BITS + 1);
    /// Joined namespaces since its last fork or exec: the next one closes the set.
    pub const JOINED: u64 = 1 << (SLOT_BITS + 2);
    /// Its end has been told. The slot stays until the id is another process's: threads that end at the same time may
    /// come by later.
    pub const GONE: u64 = 1 << (SLOT_BITS + 3);
}

/// What userspace knows of a slot, for the kernel side's decisions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SlotInfo {
    /// A [`class`].
    pub class: u32,
    /// Where its calls are kept while they are audited; 0 if they are not.
    pub audit: u32,
    /// The first slot of the same container: cgroups of several hierarchies share it.
    pub canonical: u64,
}

/// What a slot turned out to be. A slot without entry is not yet known.
pub mod class {
    pub const CONTAINER: u32 = 1;
    /// A service, a slice, a user session: its tasks are the host's.
    pub const HOST: u32 = 2;
    /// Namespaces without a cgroup: yields to a container with cgroups that is started inside (rootless runtimes).
    pub const NAMESPACES: u32 = 3;
}

/// The host as seen from pid 1, found by walking `real_parent` up from the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub inodes: Inodes,
    pub found: u32,
    /// 1 if this is what the agent was told (its own namespaces and root), and not found by the kernel side.
    pub told: u32,
    pub root: crate::Root,
}

/// A slot's share of the priority ring, by kind of event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetKey {
    pub slot: u64,
    pub kind: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub window_ns: u64,
    pub used: u64,
    /// Events that found neither room in the priority ring nor in the ordinary one. Never falls.
    pub displaced: u64,
    pub last_ns: u64,
    pub last_tgid: u32,
    /// Bit per namespace (by index) that was the host's in the last displaced event.
    pub host_mask: u32,
    pub last_inodes: Inodes,
}

/// Events of one slot and kind that may use the priority ring in [`BUDGET_WINDOW_NS`].
pub const BUDGET: u64 = 64;
pub const BUDGET_WINDOW_NS: u64 = 100_000_000;

/// Refused forks of one slot, of which few are told one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Refusals {
    /// When an event last told of them.
    pub last_ns: u64,
    pub total: u64,
    /// How many of them events have told of.
    pub told: u64,
}

/// Refused forks of one slot are told no more often than this; those between are counted.
pub const REFUSALS_WINDOW_NS: u64 = 100_000_000;

/// Why an event did not reach the agent; index of the per-CPU counters, which never fall.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The ordinary ring was full.
    RingFull = 0,
    /// The priority ring was full, and so was the ordinary one.
    PriorityFull = 1,
    /// Another event was being written on this CPU (a program interrupted by another).
    Nested = 2,
    /// A table of the kernel side was full: the event was sent, a mark may be missing; or a check of a capability or a
    /// denial was not counted.
    TableFull = 3,
}

pub const LOSSES: usize = 4;
pub const ALL_LOSSES: [(Loss, &str); LOSSES] = [
    (Loss::RingFull, "ring_full"),
    (Loss::PriorityFull, "priority_ring_full"),
    (Loss::Nested, "nested"),
    (Loss::TableFull, "table_full"),
];

assert_size!(CgroupKey = 16, SlotInfo = 16, Host = 72, BudgetKey = 16, Budget = 80, Refusals = 24);

#[cfg(feature = "user")]
mod user {
    // SAFETY: plain integers without padding that anyone could read uninitialised; any bit pattern is valid.
    unsafe impl aya::Pod for super::Offsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CgroupKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SlotInfo {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Host {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::BudgetKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Budget {}
}
