//! What the kernel side can show, and by which means: the table of features, each with its tiers in order of preference.
//!
//! A tier is a set of hooks and of abilities (`observer_common::ability`) that together serve a feature. The first tier
//! that this kernel allows serves it; `observer check` and `observer_feature_enabled` name it.

use observer_common::ability;

use super::attach::{Hook, LOOK_INSIDE, Probe, SWEEP};

/// The key that asks for checks of capabilities to be counted.
pub const AUDIT_CAPABILITIES: &str = "audit.capabilities";
/// The key that asks for the calls that containers make.
pub const AUDIT_SYSCALLS: &str = "audit.syscalls";
/// The key that asks for the calls that seccomp refuses, and so for the former as well.
pub const AUDIT_SECCOMP: &str = "audit.seccomp";
/// The key that asks for what AppArmor denies.
pub const AUDIT_APPARMOR: &str = "audit.apparmor";
/// The program on the beginnings of single calls, and the tier that has it.
pub const CALL_BEGINS: &str = "call_begins";
pub const SINGLE_BEGINNINGS: &str = "tracepoint";
/// The tier that does not tell a use from a check that did not mean one.
pub const CAPABILITIES_UNCLASSIFIED: &str = "tp_btf";

/// Something that the agent sees.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    pub name: &'static str,
    /// Without it the agent does not start.
    pub required: bool,
    /// The key of the configuration that asks for it, where it is not always wanted.
    pub asked_by: Option<&'static str>,
    /// What is not seen if no tier can be had.
    pub without: &'static str,
    /// Best first.
    pub tiers: &'static [Tier],
}

/// One way to serve a feature.
#[derive(Clone, Copy, Debug)]
pub struct Tier {
    pub name: &'static str,
    /// All of them are needed.
    pub abilities: u64,
    pub probes: &'static [Probe],
    /// What it does not show that a better tier does.
    pub lacks: &'static str,
}

/// Layouts of the kernel's structures, read from its BTF.
const fn layout(abilities: u64) -> Tier {
    Tier { name: "btf", abilities, probes: &[], lacks: "" }
}

const fn hooks(name: &'static str, probes: &'static [Probe]) -> Tier {
    Tier { name, abilities: ability::CORE, probes, lacks: "" }
}

const fn probe(program: &'static str, hook: Hook, source: &'static str) -> Probe {
    Probe { program, hook, source, has_second: true }
}

/// One without a second program: what it is skipped for changed nothing that later events rest on.
const fn alone(program: &'static str, hook: Hook, source: &'static str) -> Probe {
    Probe { program, hook, source, has_second: false }
}

/// All of them. A new probe is a program in `observer-ebpf/src/probes` and an entry here.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "processes",
        required: true,
        asked_by: None,
        without: "processes that begin and end, inherited marks, namespaces made by clone",
        tiers: &[hooks(
            "tp_btf",
            &[
                probe("process_fork", Hook::TpBtf("sched_process_fork"), "kernel_clone, kernel/fork.c"),
                probe("process_exec", Hook::TpBtf("sched_process_exec"), "exec_binprm, fs/exec.c"),
                probe("process_exit", Hook::TpBtf("sched_process_exit"), "do_exit, kernel/exit.c"),
            ],
        )],
    },
    Feature {
        name: "cgroups",
        required: true,
        asked_by: None,
        without: "containers that begin and end, moves between cgroups, entering",
        tiers: &[hooks(
            "tp_btf",
            &[
                probe("cgroup_mkdir", Hook::TpBtf("cgroup_mkdir"), "cgroup_mkdir, kernel/cgroup/cgroup.c"),
                probe("cgroup_rmdir", Hook::TpBtf("cgroup_rmdir"), "cgroup_rmdir, kernel/cgroup/cgroup.c"),
                probe(
                    "cgroup_attach_task",
                    Hook::TpBtf("cgroup_attach_task"),
                    "cgroup_attach_task, kernel/cgroup/cgroup.c",
                ),
            ],
        )],
    },
    Feature {
        name: "cgroup_transfers",
        required: false,
        asked_by: None,
        without: "tasks moved in bulk between v1 cgroups",
        tiers: &[hooks(
            "tp_btf",
            &[probe(
                "cgroup_transfer_tasks",
                Hook::TpBtf("cgroup_transfer_tasks"),
                "cgroup_transfer_tasks, kernel/cgroup/cgroup-v1.c",
            )],
        )],
    },
    Feature {
        name: "namespace_calls",
        required: true,
        asked_by: None,
        without: "setns and unshare at the moment of the call",
        tiers: &[
            Tier {
                name: "fentry",
                abilities: ability::CALL_ARGUMENTS,
                probes: &[
                    probe(
                        "fexit_setns",
                        Hook::FunctionExit("__x64_sys_setns"),
                        "SYSCALL_DEFINE2(setns), kernel/nsproxy.c",
                    ),
                    probe(
                        "fexit_unshare",
                        Hook::FunctionExit("__x64_sys_unshare"),
                        "SYSCALL_DEFINE1(unshare), kernel/fork.c",
                    ),
                ],
                lacks: "calls that seccomp refused",
            },
            hooks(
                "tracepoint",
                &[
                    probe(
                        "exit_setns",
                        Hook::SyscallExit("setns"),
                        "SYSCALL_DEFINE2(setns), kernel/nsproxy.c",
                    ),
                    probe("exit_unshare", Hook::SyscallExit("unshare"), "ksys_unshare, kernel/fork.c"),
                ],
            ),
        ],
    },
    Feature {
        name: "namespace_refusals",
        required: false,
        asked_by: None,
        without: "refused attempts to clone into new namespaces",
        tiers: &[
            Tier {
                name: "fentry",
                abilities: ability::CORE,
                probes: &[
                    alone(
                        "fexit_copy_creds",
                        Hook::FunctionExit("copy_creds"),
                        "copy_creds, kernel/cred.c, called by copy_process, kernel/fork.c",
                    ),
                    alone(
                        "fexit_copy_namespaces",
                        Hook::FunctionExit("copy_namespaces"),
                        "copy_namespaces, kernel/nsproxy.c, called by copy_process, kernel/fork.c",
                    ),
                ],
                lacks: "calls that seccomp refused",
            },
            Tier {
                name: "tracepoint",
                abilities: ability::CALL_ARGUMENTS | ability::READ_USER,
                probes: &[
                    alone("exit_clone", Hook::SyscallExit("clone"), "SYSCALL_DEFINE5(clone), kernel/fork.c"),
                    alone(
                        "exit_clone3",
                        Hook::SyscallExit("clone3"),
                        "SYSCALL_DEFINE2(clone3), kernel/fork.c",
                    ),
                ],
                lacks: "32-bit calls, and what clone3 was asked for if another thread changes it during the call",
            },
        ],
    },
    Feature {
        name: "oom_kills",
        required: false,
        asked_by: None,
        without: "processes that the kernel kills for want of memory",
        tiers: &[
            Tier {
                name: "tp_btf",
                abilities: ability::VICTIM_TASK,
                probes: &[alone(
                    "oom_kill_task",
                    Hook::TpBtf("mark_victim"),
                    "mark_oom_victim, mm/oom_kill.c (6.9)",
                )],
                lacks: "",
            },
            Tier {
                name: "tp_btf_id",
                abilities: ability::VICTIM_ID,
                probes: &[alone(
                    "oom_kill_id",
                    Hook::TpBtf("mark_victim"),
                    "mark_oom_victim, mm/oom_kill.c, until 6.8",
                )],
                lacks: "more than the id of a victim that is not the process that asked for memory",
            },
        ],
    },
    Feature {
        name: "oom_limits",
        required: false,
        asked_by: None,
        without: "which cgroup's memory limit a process is killed for",
        tiers: &[layout(ability::MEMORY_LIMITS | ability::CGROUP_V1)],
    },
    Feature {
        name: "oom_memory",
        required: false,
        asked_by: None,
        without: "how much memory a process had that was killed for want of it, and its oom_score_adj",
        tiers: &[
            layout(ability::RESIDENT | ability::VICTIM_SCORE),
            Tier {
                name: "btf_plain",
                abilities: ability::RESIDENT_PLAIN | ability::VICTIM_SCORE,
                probes: &[],
                lacks: "",
            },
        ],
    },
    Feature {
        name: "fork_refusals",
        required: false,
        asked_by: None,
        without: "forks that a limit on tasks refuses, at the moment of the call",
        tiers: &[
            Tier {
                name: "fentry",
                abilities: ability::PIDS_LIMITS | ability::CGROUP_V1,
                probes: &[alone(
                    "fexit_kernel_clone",
                    Hook::FunctionExit("kernel_clone"),
                    "kernel_clone, kernel/fork.c",
                )],
                lacks: "",
            },
            Tier {
                name: "tracepoint",
                abilities: ability::PIDS_LIMITS | ability::CGROUP_V1,
                probes: &[
                    alone(
                        "exit_fork_refused",
                        Hook::SyscallExit("clone"),
                        "SYSCALL_DEFINE5(clone), kernel/fork.c",
                    ),
                    alone(
                        "exit_fork_refused",
                        Hook::SyscallExit("clone3"),
                        "SYSCALL_DEFINE2(clone3), kernel/fork.c",
                    ),
                    alone(
                        "exit_fork_refused",
                        Hook::SyscallExit("fork"),
                        "SYSCALL_DEFINE0(fork), kernel/fork.c",
                    ),
                    alone(
                        "exit_fork_refused",
                        Hook::SyscallExit("vfork"),
                        "SYSCALL_DEFINE0(vfork), kernel/fork.c",
                    ),
                ],
                lacks: "32-bit calls",
            },
        ],
    },
    Feature {
        name: "root_calls",
        required: false,
        asked_by: None,
        without: "chroot and pivot_root at the moment of the call",
        tiers: &[
            Tier {
                name: "fentry",
                abilities: ability::ROOT | ability::CALL_ARGUMENTS,
                probes: &[
                    probe(
                        "fexit_chroot",
                        Hook::FunctionExit("__x64_sys_chroot"),
                        "SYSCALL_DEFINE1(chroot), fs/open.c",
                    ),
                    probe(
                        "fexit_pivot_root",
                        Hook::FunctionExit("__x64_sys_pivot_root"),
                        "SYSCALL_DEFINE2(pivot_root), fs/namespace.c",
                    ),
                ],
                lacks: "calls that seccomp refused",
            },
            Tier {
                name: "tracepoint",
                abilities: ability::ROOT,
                probes: &[
                    probe("exit_root", Hook::SyscallExit("chroot"), "SYSCALL_DEFINE1(chroot), fs/open.c"),
                    probe(
                        "exit_root",
                        Hook::SyscallExit("pivot_root"),
                        "SYSCALL_DEFINE2(pivot_root), fs/namespace.c",
                    ),
                ],
                lacks: "",
            },
        ],
    },
    Feature {
        name: "compat_calls",
        required: false,
        asked_by: None,
        without: "32-bit calls (int 0x80) at the moment of the call: what they changed shows at the task's next fork, exec or \
                  exit, or in the next sweep",
        tiers: &[Tier {
            name: "fentry",
            abilities: ability::CALL_ARGUMENTS,
            probes: &[
                probe(
                    "fexit_compat_setns",
                    Hook::FunctionExit("__ia32_sys_setns"),
                    "__IA32_SYS_STUBx, arch/x86/include/asm/syscall_wrapper.h",
                ),
                probe(
                    "fexit_compat_unshare",
                    Hook::FunctionExit("__ia32_sys_unshare"),
                    "__IA32_SYS_STUBx, arch/x86/include/asm/syscall_wrapper.h",
                ),
                probe(
                    "fexit_compat_chroot",
                    Hook::FunctionExit("__ia32_sys_chroot"),
                    "__IA32_SYS_STUBx, arch/x86/include/asm/syscall_wrapper.h",
                ),
                probe(
                    "fexit_compat_pivot_root",
                    Hook::FunctionExit("__ia32_sys_pivot_root"),
                    "__IA32_SYS_STUBx, arch/x86/include/asm/syscall_wrapper.h",
                ),
            ],
            lacks: "",
        }],
    },
    Feature {
        name: "sweep",
        required: false,
        asked_by: None,
        without: "changes that no hook shows",
        tiers: &[
            hooks(
                "iterator",
                &[probe(SWEEP, Hook::Iterator("task"), "task_seq_show, kernel/bpf/task_iter.c")],
            ),
            Tier {
                name: "procfs",
                abilities: ability::CORE,
                probes: &[],
                lacks: "threads other than the first of a process, and root directories",
            },
        ],
    },
    Feature {
        name: "pid_namespaces",
        required: false,
        asked_by: None,
        without: "the pid namespace that a process is in (the one that its children get is seen), and its number there",
        tiers: &[layout(ability::PID_NAMESPACE)],
    },
    Feature {
        name: "time_namespaces",
        required: false,
        asked_by: None,
        without: "time namespaces",
        tiers: &[layout(ability::TIME_NAMESPACE)],
    },
    Feature {
        name: "cgroup_namespaces",
        required: false,
        asked_by: None,
        without: "cgroup namespaces",
        tiers: &[layout(ability::CGROUP_NAMESPACE)],
    },
    Feature {
        name: "cgroup_v1",
        required: false,
        asked_by: None,
        without: "which v1 cgroups an event's process is in: containers are known by their v2 cgroups only",
        tiers: &[layout(ability::CGROUP_V1)],
    },
    Feature {
        name: "host_root",
        required: false,
        asked_by: None,
        without: "root.escape",
        tiers: &[layout(ability::ROOT)],
    },
    Feature {
        name: "root_mounts",
        required: false,
        asked_by: None,
        without: "root directories in other mount namespaces, and what a root directory is",
        tiers: &[layout(ability::ROOT_MOUNT)],
    },
    Feature {
        name: "root_paths",
        required: false,
        asked_by: None,
        without: "paths of new root directories",
        tiers: &[
            layout(ability::ROOT | ability::ROOT_MOUNT | ability::ROOT_PATH),
            Tier {
                name: "caller",
                abilities: ability::ROOT | ability::READ_USER | ability::CALL_ARGUMENTS,
                probes: &[],
                lacks: "the kernel's own path: what is told is read from the caller's memory, where another thread may have \
                        rewritten it",
            },
        ],
    },
    Feature {
        name: "arguments",
        required: false,
        asked_by: None,
        without: "arguments of programs that end at once, and paths given to a chroot or pivot_root that was refused",
        tiers: &[layout(ability::PROGRAM | ability::READ_USER)],
    },
    Feature {
        name: "kernel_texts",
        required: false,
        asked_by: None,
        without: "file names of programs as the kernel has them; paths of cgroups are looked up by their ids",
        tiers: &[layout(ability::READ_KERNEL)],
    },
    Feature {
        name: "capability_checks",
        required: false,
        asked_by: Some(AUDIT_CAPABILITIES),
        without: "which capabilities containers use, and which they are denied",
        tiers: &[
            Tier {
                name: "fentry",
                abilities: ability::OWN_CREDENTIALS,
                probes: &[alone(
                    "fexit_cap_capable",
                    Hook::FunctionExit("cap_capable"),
                    "cap_capable, security/commoncap.c",
                )],
                lacks: "",
            },
            Tier {
                name: CAPABILITIES_UNCLASSIFIED,
                abilities: ability::OWN_CREDENTIALS,
                probes: &[alone(
                    "tp_cap_capable",
                    Hook::TpBtf("cap_capable"),
                    "cap_capable, security/commoncap.c (6.14)",
                )],
                lacks: "which checks are speculative (NOAUDIT)",
            },
        ],
    },
    Feature {
        name: "syscalls_used",
        required: false,
        asked_by: Some(AUDIT_SYSCALLS),
        without: "which system calls containers make",
        tiers: &[Tier {
            name: "tp_btf",
            abilities: ability::CALL_NUMBERS,
            probes: &[alone(
                "call_over",
                Hook::TpBtf("sys_exit"),
                "syscall_exit_work, kernel/entry/common.c",
            )],
            lacks: "calls that never return, 32-bit calls",
        }],
    },
    Feature {
        name: "seccomp_denials",
        required: false,
        asked_by: Some(AUDIT_SECCOMP),
        without: "which system calls of containers seccomp refuses",
        tiers: &[
            Tier {
                name: SINGLE_BEGINNINGS,
                abilities: DENIALS | ability::LATE_EVENTS,
                probes: &[
                    alone(CALL_BEGINS, Hook::SyscallEntries, "syscall_trace_enter, kernel/entry/common.c"),
                    DENIAL_PROBES[0],
                    DENIAL_PROBES[1],
                    DENIAL_PROBES[2],
                ],
                lacks: LOOKS_LIKE_SUCCESS,
            },
            Tier {
                name: "tp_btf",
                abilities: DENIALS,
                probes: &[
                    probe(
                        "any_call_begins",
                        Hook::TpBtf("sys_enter"),
                        "syscall_trace_enter, kernel/entry/common.c",
                    ),
                    DENIAL_PROBES[0],
                    DENIAL_PROBES[1],
                    DENIAL_PROBES[2],
                ],
                lacks: LOOKS_LIKE_SUCCESS,
            },
        ],
    },
    Feature {
        name: "apparmor_denials",
        required: false,
        asked_by: Some(AUDIT_APPARMOR),
        without: "what AppArmor denies containers",
        // No program: the kernel's own log, see audit_log.rs.
        tiers: &[Tier { name: "audit_log", abilities: ability::CORE, probes: &[], lacks: "" }],
    },
];

/// What refusals by seccomp take, however beginnings are seen.
const DENIALS: u64 =
    ability::CALL_NUMBERS | ability::SECCOMP_MODE | ability::TASK_REGS | ability::READ_KERNEL;
const LOOKS_LIKE_SUCCESS: &str = "32-bit calls, and refusals that look like success (errno 0)";
const DENIAL_PROBES: [Probe; 3] = [
    alone(LOOK_INSIDE, Hook::Iterator("task"), "task_seq_show, kernel/bpf/task_iter.c"),
    alone("seccomp_signal", Hook::TpBtf("signal_generate"), "force_sig_seccomp, kernel/signal.c"),
    alone(
        "seccomp_exit",
        Hook::TpBtf("sched_process_exit"),
        "__seccomp_filter, kernel/seccomp.c, by do_exit",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_feature_has_a_tier() {
        let names: BTreeSet<&str> = FEATURES.iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), FEATURES.len());
        for feature in FEATURES {
            assert!(!feature.tiers.is_empty(), "{}", feature.name);
            assert!(feature.tiers.iter().all(|tier| tier.abilities != 0), "{}", feature.name);
        }
    }

    /// But on several hooks of one tier.
    #[test]
    fn no_program_serves_twice() {
        // (Tiers of one feature may share some: only one of them serves.)
        let of = |feature: &Feature| -> BTreeSet<&str> {
            feature.tiers.iter().flat_map(|tier| tier.probes).map(|probe| probe.program).collect()
        };
        let programs: Vec<&str> = FEATURES.iter().flat_map(of).collect();
        assert_eq!(programs.len(), programs.iter().collect::<BTreeSet<_>>().len());
    }

    /// One that is not would cost every call what the others save.
    #[test]
    fn programs_on_ends_of_calls_are_all_taken_over() {
        use observer_common::{CLONE_SECOND, CLONE3_SECOND, TAKEN_OVER};

        let probes = FEATURES.iter().flat_map(|feature| feature.tiers).flat_map(|tier| tier.probes);
        let mut on_ends: Vec<(u32, &str, &str)> = probes
            .filter_map(|probe| match probe.hook {
                Hook::SyscallExit(call) => Some((call, probe.program)),
                _ => None,
            })
            .map(|(call, program)| {
                let name = program.strip_prefix("exit_").expect("a program on the end of a call");
                (crate::model::syscall::number(call).expect("a call"), call, name)
            })
            .collect();
        on_ends.sort_unstable();
        assert_eq!(on_ends, TAKEN_OVER);
        let second = [CLONE_SECOND, CLONE3_SECOND].map(|place| TAKEN_OVER[place as usize].2);
        assert_eq!(second, ["fork_refused"; 2]);
    }
}
