//! What a task is: its ids, its namespaces, its root, and the marks kept for it.

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated},
    macros::map,
    maps::Array,
};
use observer_common::{Host, Inodes, NAMESPACES, Root, SLOT_MASK, ability, mark};

use crate::{
    audit,
    emit::Frame,
    offsets::{NOWHERE, Place, able, follow, load, load_set, offset, read},
    root::Directory,
    slots,
};

/// For each process, by thread group id: its container slot and `observer_common::mark` bits. One entry per
/// *process*, because a container is entered by processes: threads share it, an exec by a thread other than the
/// leader cannot lose it (the thread group id stays), and moving a whole process needs no walk over its
/// threads. Sized to pid_max by the agent.
#[map]
static TASKS: Array<u64> = Array::with_max_entries(1 << 15, 0);

/// For each thread, by thread id: `tuple_hash` of its namespaces when last seen; 0 = not yet. Namespaces are
/// per thread. Sized to pid_max by the agent.
#[map]
static TUPLES: Array<u64> = Array::with_max_entries(1 << 15, 0);

/// The host's namespaces and root; one entry.
#[map]
static HOST: Array<Host> = Array::with_max_entries(1, 0);

/// The dentry at the root of the host's root mount: the same object means the same directory, where device and inode
/// number do not (every btrfs subvolume's root has number 256). Stays in the kernel.
#[map]
static HOST_ROOT: Array<u64> = Array::with_max_entries(1, 0);

/// The host's root dentry, as a number; 0 if it is not known.
#[inline(always)]
pub fn host_root() -> Option<u64> {
    HOST_ROOT.get(0).copied()
}

/// A pointer to a task_struct that the verifier knows as one.
#[derive(Clone, Copy)]
pub struct Task(pub Place);

const PF_KTHREAD: u32 = 0x0020_0000;

impl Task {
    /// One that a program has been given, which runs often.
    #[inline(always)]
    pub fn often(at: *const u8) -> Self {
        Task(Place::often(at))
    }
    /// The same for one that does not.
    #[inline(always)]
    pub fn seldom(at: *const u8) -> Self {
        Task(Place::seldom(at))
    }
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helpers have no preconditions.
        unsafe {
            if able(ability::TYPED_LOADS) {
                Task::seldom(generated::bpf_get_current_task_btf() as *const u8)
            } else {
                Task::seldom(bpf_get_current_task() as *const u8)
            }
        }
    }
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        // SAFETY: task_struct.tgid is a pid_t.
        unsafe { load(self.0, offset!(task_tgid)) }
    }
    #[inline(always)]
    pub fn tid(self) -> u32 {
        // SAFETY: task_struct.pid is a pid_t.
        unsafe { load(self.0, offset!(task_pid)) }
    }
    #[inline(always)]
    pub fn parent(self) -> Task {
        // SAFETY: task_struct.real_parent points to a task_struct.
        Task(unsafe { follow(self.0, offset!(task_real_parent)) })
    }
    #[inline(always)]
    pub fn exit_code(self) -> i32 {
        // SAFETY: task_struct.exit_code is an int.
        unsafe { load(self.0, offset!(task_exit_code)) }
    }
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        // SAFETY: task_struct.flags is an unsigned int.
        let bits: u32 = unsafe { load(self.0, offset!(task_flags)) };
        bits & PF_KTHREAD != 0
    }
    /// Start of the process (its leader), ns of boot time.
    #[inline(always)]
    pub fn start(self) -> u64 {
        // SAFETY: group_leader points to a task_struct, start_boottime is a u64.
        unsafe { load(follow(self.0, offset!(task_group_leader)), offset!(task_start)) }
    }
    #[inline(always)]
    pub fn ids(self) -> (u32, u32) {
        // SAFETY: cred's uid and gid are structs of one unsigned int each.
        unsafe {
            let cred = follow(self.0, offset!(task_cred));
            (load(cred, offset!(cred_uid)), load(cred, offset!(cred_gid)))
        }
    }
    #[inline(always)]
    pub fn comm(self, into: *mut [u8; 16]) {
        // SAFETY: task_struct.comm is a char[16], read as two words; `into` is 16 writable bytes.
        unsafe {
            let words = into as *mut u64;
            words.write_unaligned(load(self.0, offset!(task_comm)));
            words.add(1).write_unaligned(load(self.0, offset!(task_comm) + 8));
        }
    }
    /// The task's own credentials, which stay when it puts on others for a while (`override_creds`).
    #[inline(always)]
    pub fn real_cred(self) -> *const u8 {
        // SAFETY: task_struct.real_cred is a pointer.
        unsafe { load(self.0, offset!(task_real_cred)) }
    }
    /// What its own credentials permit, what they and all that they let it come to are, and how many programs it has executed;
    /// zeros where this kernel does not show it.
    #[inline(always)]
    pub fn privileges(self) -> (u64, u64, u32) {
        if !able(ability::OWN_CREDENTIALS) {
            return (0, 0, 0);
        }
        // SAFETY: members as named in `Offsets`.
        unsafe {
            let cred = follow(self.0, offset!(task_real_cred));
            let permitted = load_set(cred, offset!(cred_permitted));
            let more = load_set(cred, offset!(cred_bounding)) | load_set(cred, offset!(cred_inheritable));
            let execs: u64 = load(self.0, offset!(task_execs));
            (permitted, permitted | more, execs as u32)
        }
    }
    /// True for a thread that has given up its namespaces: it is exiting.
    #[inline(always)]
    pub fn is_gone(self) -> bool {
        // SAFETY: task_struct.nsproxy is a pointer.
        unsafe { follow(self.0, offset!(task_nsproxy)) }.at.is_null()
    }
    /// True in the last thread of a process that exits: do_exit counts `signal->live` down before the tracepoint.
    #[inline(always)]
    pub fn is_last(self) -> bool {
        // SAFETY: signal_struct.live is an atomic_t.
        let live: u32 = unsafe { load(follow(self.0, offset!(task_signal)), offset!(signal_live)) };
        live == 0
    }
    /// The innermost pid namespace's inode, and the task's number in it. The level is a variable index, which the
    /// verifier does not take for a field: read by helper, through a number that it does not take for a pointer (6.1
    /// refuses to add a variable to one).
    #[inline(always)]
    fn pid_namespace(self) -> (u32, u32) {
        if !able(ability::PID_NAMESPACE) {
            return (0, 0);
        }
        // SAFETY: integers, and pointers as integers.
        unsafe {
            let pid: u64 = read(self.0.at, offset!(task_thread_pid));
            let level: u32 = read(pid as *const u8, offset!(pid_level));
            let entry = offset!(pid_numbers) + (level as usize & 0x3f) * offset!(upid_size);
            let entry = pid.wrapping_add(entry as u64) as *const u8;
            let ns: u64 = read(entry, offset!(upid_ns));
            (read(ns as *const u8, offset!(pid_inum)), read(entry, offset!(upid_nr)))
        }
    }
    /// Writes the namespace tuple, 0 for what this kernel does not show, and returns the pid in the innermost pid
    /// namespace.
    #[inline(always)]
    pub fn namespaces(self, into: *mut Inodes) -> u32 {
        let (pid_inum, nr) = self.pid_namespace();
        // SAFETY: members of nsproxy and cred as named in `Offsets`; `into` is a writable tuple.
        unsafe {
            let proxy = follow(self.0, offset!(task_nsproxy));
            let user = follow(follow(self.0, offset!(task_cred)), offset!(cred_user_ns));
            let cgroup = if able(ability::CGROUP_NAMESPACE) {
                load(follow(proxy, offset!(nsproxy_cgroup)), offset!(cgroup_inum))
            } else {
                0
            };
            let (time, time_for_children) = if able(ability::TIME_NAMESPACE) {
                (
                    load(follow(proxy, offset!(nsproxy_time)), offset!(time_inum)),
                    load(follow(proxy, offset!(nsproxy_time_for_children)), offset!(time_inum)),
                )
            } else {
                (0, 0)
            };
            let tuple: Inodes = [
                cgroup,
                load(follow(proxy, offset!(nsproxy_ipc)), offset!(ipc_inum)),
                load(follow(proxy, offset!(nsproxy_mnt)), offset!(mnt_inum)),
                load(follow(proxy, offset!(nsproxy_net)), offset!(net_inum)),
                pid_inum,
                load(follow(proxy, offset!(nsproxy_pid_for_children)), offset!(pid_inum)),
                time,
                time_for_children,
                load(user, offset!(user_inum)),
                load(follow(proxy, offset!(nsproxy_uts)), offset!(uts_inum)),
            ];
            *into = tuple;
            nr
        }
    }
    /// The dentry at the root of the mount that the task's root directory is in.
    #[inline(always)]
    pub fn root_dentry(self) -> *const u8 {
        if !able(ability::ROOT) {
            return NOWHERE;
        }
        // SAFETY: typed members.
        unsafe {
            follow(follow(follow(self.0, offset!(task_fs)), offset!(fs_root_mnt)), offset!(vfsmount_root)).at
        }
    }
    /// The task's root directory; see `observer_common::Root`. Zeros where this kernel does not show it.
    #[inline(always)]
    pub fn root(self) -> Root {
        if able(ability::ROOT | ability::ROOT_MOUNT) {
            Directory::root_of(self).describe()
        } else {
            UNKNOWN_ROOT
        }
    }
}

/// Where this kernel does not show it.
pub const UNKNOWN_ROOT: Root = Root { mnt_ns: 0, dev: 0, mount_root_ino: 0, ino: 0 };

/// The mark of the frame's process; where there is none, what its cgroups say: see [`slots::mark_by_cgroups`].
/// Returns the stored mark, too.
#[inline(always)]
pub fn mark_of_frame(frame: &Frame, tgid: u32) -> (u64, u64) {
    complete(frame, mark(tgid))
}

/// As [`mark_of_frame`], for a stored mark.
#[inline(always)]
pub fn complete(frame: &Frame, stored: u64) -> (u64, u64) {
    let mark = if stored & SLOT_MASK != 0 { stored } else { stored | slots::mark_by_cgroups(frame) };
    frame.set_slot(mark);
    (stored, mark)
}

/// A process's mark. A slot that turned out to be the host's counts as none, and so does the mark of one that ended.
#[inline(always)]
pub fn mark(tgid: u32) -> u64 {
    let mark = mark_at_exit(tgid);
    if mark & mark::GONE != 0 { 0 } else { mark }
}

/// The same for a thread that ends: its process may have ended a moment ago.
#[inline(always)]
pub fn mark_at_exit(tgid: u32) -> u64 {
    let raw = stored_mark(tgid);
    if slots::is_host(raw & SLOT_MASK) { raw & !SLOT_MASK } else { raw }
}

/// A process's mark as it is stored, be its slot whose it may.
#[inline(always)]
pub fn stored_mark(tgid: u32) -> u64 {
    TASKS.get(tgid).copied().unwrap_or(0)
}

#[inline(always)]
pub fn set_mark(tgid: u32, mark: u64) {
    if let Some(place) = TASKS.get_ptr_mut(tgid) {
        // SAFETY: a map entry; aligned words are written whole.
        unsafe { *place = mark }
    }
    audit::forget(tgid);
}

#[inline(always)]
pub fn last_tuple(tid: u32) -> u64 {
    TUPLES.get(tid).copied().unwrap_or(0)
}

#[inline(always)]
pub fn set_last_tuple(tid: u32, hash: u64) {
    if let Some(place) = TUPLES.get_ptr_mut(tid) {
        // SAFETY: as in `set_mark`.
        unsafe { *place = hash }
    }
}

/// The host's namespaces, once found.
#[inline(always)]
pub fn host() -> Option<&'static Host> {
    HOST.get(0).filter(|host| host.found != 0)
}

/// True if the frame's task is in all of the host's namespaces.
#[inline(always)]
pub fn has_hosts_namespaces(frame: &Frame) -> bool {
    let Some(host) = host() else { return true };
    let mut differs = 0;
    for i in 0..NAMESPACES {
        // SAFETY: the header lies in the scratch frame. No branch, see `Frame::fill`.
        differs |= unsafe { (*frame.header()).inodes[i] } ^ host.inodes[i];
    }
    differs == 0
}

/// Finds pid 1 by walking up from the current task and keeps its namespaces and root: /proc/1/ns needs a
/// capability that the agent may lack, and its own namespaces are not the host's when it runs in a pod.
#[inline(always)]
pub fn find_host() {
    let Some(place) = HOST.get_ptr_mut(0) else { return };
    let mut task = Task::current();
    for _ in 0..32 {
        if task.tgid() == 1 {
            // SAFETY: a map entry of this type; `found` is written last.
            unsafe {
                task.namespaces(&raw mut (*place).inodes);
                (*place).root = task.root();
                if let Some(root) = HOST_ROOT.get_ptr_mut(0) {
                    *root = task.root_dentry() as u64;
                }
                (&raw mut (*place).found).write_volatile(1);
            }
            return;
        }
        task = task.parent();
    }
}
