//! The attach table: every program, the hook it runs on, and what is lost without it.

/// A place in the kernel where a program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A raw tracepoint with typed arguments.
    TpBtf(&'static str),
    /// `syscalls:sys_exit_NAME`.
    SyscallExit(&'static str),
    /// Not a hook but a look at every object of a kind, when read.
    Iterator(&'static str),
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hook::TpBtf(name) => write!(f, "tp_btf/{name}"),
            Hook::Iterator(name) => write!(f, "iter/{name}"),
            Hook::SyscallExit(name) => write!(f, "tracepoint/syscalls/sys_exit_{name}"),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The program's name in the object file.
    pub program: &'static str,
    pub hook: Hook,
    /// Without it the agent does not start.
    pub required: bool,
    /// What is not seen when it cannot be attached.
    pub without: &'static str,
    /// The kernel function that it was matched with, and its file.
    pub source: &'static str,
}

const fn tp(
    program: &'static str,
    name: &'static str,
    required: bool,
    without: &'static str,
    source: &'static str,
) -> Probe {
    Probe { program, hook: Hook::TpBtf(name), required, without, source }
}

const fn exit(
    program: &'static str,
    name: &'static str,
    required: bool,
    without: &'static str,
    source: &'static str,
) -> Probe {
    Probe { program, hook: Hook::SyscallExit(name), required, without, source }
}

/// All of them. A new probe is a program in `observer-ebpf/src/probes` and a row here.
pub const PROBES: &[Probe] = &[
    tp(
        "process_fork",
        "sched_process_fork",
        true,
        "new processes, inherited marks, namespaces made by clone",
        "kernel_clone, kernel/fork.c",
    ),
    tp(
        "process_exec",
        "sched_process_exec",
        true,
        "program starts, the moment a task has entered a container",
        "exec_binprm, fs/exec.c",
    ),
    tp(
        "process_exit",
        "sched_process_exit",
        true,
        "ends of processes and containers",
        "do_exit, kernel/exit.c",
    ),
    tp(
        "cgroup_mkdir",
        "cgroup_mkdir",
        true,
        "new containers and nested cgroups",
        "cgroup_mkdir, kernel/cgroup/cgroup.c",
    ),
    tp("cgroup_rmdir", "cgroup_rmdir", true, "ended containers", "cgroup_rmdir, kernel/cgroup/cgroup.c"),
    tp(
        "cgroup_attach_task",
        "cgroup_attach_task",
        true,
        "moves between cgroups, entering",
        "cgroup_attach_task, kernel/cgroup/cgroup.c",
    ),
    tp(
        "cgroup_transfer_tasks",
        "cgroup_transfer_tasks",
        false,
        "tasks moved in bulk between v1 cgroups",
        "cgroup_transfer_tasks, kernel/cgroup/cgroup-v1.c",
    ),
    exit(
        "exit_setns",
        "setns",
        true,
        "joined namespaces at the moment of the call",
        "SYSCALL_DEFINE2(setns), kernel/nsproxy.c",
    ),
    exit(
        "exit_unshare",
        "unshare",
        true,
        "new namespaces at the moment of the call",
        "ksys_unshare, kernel/fork.c",
    ),
    exit(
        "exit_clone",
        "clone",
        false,
        "refused attempts to clone into new namespaces",
        "SYSCALL_DEFINE5(clone), kernel/fork.c",
    ),
    exit(
        "exit_clone3",
        "clone3",
        false,
        "refused attempts to clone3 into new namespaces",
        "SYSCALL_DEFINE2(clone3), kernel/fork.c",
    ),
    exit("exit_chroot", "chroot", false, "root.escape by chroot", "SYSCALL_DEFINE1(chroot), fs/open.c"),
    exit(
        "exit_pivot_root",
        "pivot_root",
        false,
        "root.escape by pivot_root",
        "SYSCALL_DEFINE2(pivot_root), fs/namespace.c",
    ),
    Probe {
        program: SWEEP,
        hook: Hook::Iterator("task"),
        required: false,
        without: "changes that no hook shows, in threads that neither fork, exec nor exit (the sweep reads /proc then, \
                  which shows leaders only)",
        source: "task_seq_show, kernel/bpf/task_iter.c",
    },
];

/// The program of the sweep.
pub const SWEEP: &str = "sweep_tasks";
