//! The agent's own filter of system calls, in three parts of which the strictest answer counts:
//!
//! - what it never has a cause to do (run a program, trace a process, mount, load a module) ends it at once: somebody else
//!   is steering;
//! - `clone3`, whose flags lie in memory that no filter can read, does not exist, so that the C library makes threads by
//!   `clone`, and that may make threads only;
//! - anything else that is not on the list of what running takes is refused with EPERM, and not fatal: a call that a new C
//!   library makes must not switch off the watch.
//!
//! The list was recorded from runs with all sinks, and holds also what the C library and the runtime may do instead.
//! Refusals are written to the kernel's audit log (SECCOMP_FILTER_FLAG_LOG), but not that of `clone3`, which comes with every
//! thread.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::ProtectionError;

/// Never.
const FATAL: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
];

/// What running takes.
const ALLOWED: &[i64] = &[
    // The kernel programs and their maps; hooks that are armed later; what a cgroup is, by its id.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_ioctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Files: reading the host; stores and logs.
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    // Threads, signals, time.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_getattr,
    libc::SYS_getcpu,
    libc::SYS_prctl,
    libc::SYS_arch_prctl,
    libc::SYS_prlimit64,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_time,
    libc::SYS_gettimeofday,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_signalfd4,
    // Sinks, HTTP, the local API; names by the C library's resolver.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
];

/// All three filters, for all threads.
pub fn install() -> Result<(), ProtectionError> {
    // SAFETY: plain integers. Without this the kernel takes no filter from a thread without SYS_ADMIN.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(ProtectionError::Refused(io::Error::last_os_error()));
    }
    programs()?.iter().try_for_each(|(program, log)| load(program, *log))
}

/// Each with whether its refusals are worth a line of the audit log.
fn programs() -> Result<[(BpfProgram, bool); 3], ProtectionError> {
    let whole = |calls: &[i64]| calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let program = |rules, mismatch, matched| -> Result<BpfProgram, ProtectionError> {
        Ok(SeccompFilter::new(rules, mismatch, matched, TARGET)?.try_into()?)
    };
    let mut allowed = whole(ALLOWED);
    // A thread shares everything with its maker; whoever is made without that flag is a process.
    let thread = libc::CLONE_THREAD as u64;
    let makes_thread =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread)?;
    allowed.insert(libc::SYS_clone, vec![SeccompRule::new(vec![makes_thread])?]);
    Ok([
        // The filter that is loaded first is asked last, which makes no difference to the answer. The loading itself must
        // be allowed until the last one is in place, so the list comes last.
        (program(whole(FATAL), SeccompAction::Allow, SeccompAction::KillProcess)?, true),
        (
            program(
                whole(&[libc::SYS_clone3]),
                SeccompAction::Allow,
                SeccompAction::Errno(libc::ENOSYS as u32),
            )?,
            false,
        ),
        (program(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?, true),
    ])
}

#[cfg(target_arch = "x86_64")]
const TARGET: TargetArch = TargetArch::x86_64;

/// seccompiler's own loader asks for no log.
fn load(program: &BpfProgram, log: bool) -> Result<(), ProtectionError> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // (`sock_filter` here and there is the same C structure: 16 bits, 8, 8, 32.)
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the program is as long as it says, and the kernel only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match result {
        0 => Ok(()),
        thread if thread > 0 => Err(ProtectionError::Thread(thread)),
        _ => Err(ProtectionError::Refused(io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn no_call_has_two_answers() {
        let mut all: Vec<i64> = FATAL.iter().chain(ALLOWED).copied().chain([libc::SYS_clone]).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(size_of::<seccompiler::sock_filter>(), size_of::<libc::sock_filter>());
    }

    /// Under the filter, in a process of its own: this test binary, started again with what to try.
    #[test]
    fn what_is_refused_and_what_kills() {
        const INSIDE: &str = "OBSERVER_TEST_FILTER";
        if let Ok(case) = std::env::var(INSIDE) {
            let (go, waits) = std::sync::mpsc::channel::<()>();
            // A thread that is older than the filter.
            let older = std::thread::spawn(move || {
                let _ = waits.recv();
                attempt(&case)
            });
            install().expect("a filter");
            go.send(()).expect("the older thread");
            let code = older.join().expect("the older thread");
            let newer = std::thread::spawn(|| 7).join().expect("a thread made under the filter");
            assert_eq!(newer, 7);
            std::process::exit(code);
        }
        let run = |case: &str| {
            Command::new(std::env::current_exe().expect("this test"))
                .args([
                    "--exact",
                    "protection::seccomp::tests::what_is_refused_and_what_kills",
                    "--nocapture",
                ])
                .env(INSIDE, case)
                .output()
                .expect("start this test again")
        };
        let killed_by = |case: &str| std::os::unix::process::ExitStatusExt::signal(&run(case).status);
        assert_eq!(run("file").status.code(), Some(0), "{:?}", run("file"));
        assert_eq!(run("keyctl").status.code(), Some(libc::EPERM));
        assert_eq!(run("fork").status.code(), Some(libc::EPERM));
        assert_eq!(run("unshare").status.code(), Some(libc::EPERM));
        assert_eq!(killed_by("exec"), Some(libc::SIGSYS));
        assert_eq!(killed_by("setns"), Some(libc::SIGSYS));
    }

    /// 0 if it works, else the errno.
    fn attempt(case: &str) -> i32 {
        // SAFETY: plain integers and null pointers, which the calls refuse if the filter does not.
        let result = unsafe {
            match case {
                "file" => return i32::from(std::fs::read("/proc/self/status").is_err()),
                "keyctl" => libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0),
                "fork" => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
                "unshare" => libc::syscall(libc::SYS_unshare, 0),
                "exec" => libc::syscall(libc::SYS_execve, 0, 0, 0),
                "setns" => libc::syscall(libc::SYS_setns, -1, 0),
                _ => return 99,
            }
        };
        if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(98) } else { 0 }
    }
}
