//! Thin wrappers that turn libc's -1 into an errno with the name of the step that failed.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

/// A refusal by the kernel, and which step it refused.
pub(crate) struct Errno {
    pub(crate) code: i32,
    pub(crate) at: &'static str,
}

impl Errno {
    pub(crate) fn last(at: &'static str) -> Self {
        Self::from(std::io::Error::last_os_error(), at)
    }

    pub(crate) fn from(error: std::io::Error, at: &'static str) -> Self {
        Self { code: error.raw_os_error().unwrap_or(255), at }
    }
}

/// libc's convention: -1 and errno.
pub(crate) fn check(result: i64, at: &'static str) -> Result<i64, Errno> {
    if result == -1 { Err(Errno::last(at)) } else { Ok(result) }
}

/// The kernel's own convention, as int 0x80 returns it: -errno.
pub(crate) fn check_raw(result: i32, at: &'static str) -> Result<i32, Errno> {
    if result < 0 { Err(Errno { code: -result, at }) } else { Ok(result) }
}

/// The CLONE_NEW* flag of a namespace type.
pub(crate) fn flag(kind: &str) -> i32 {
    match kind {
        "mnt" => libc::CLONE_NEWNS,
        "pid" => libc::CLONE_NEWPID,
        "net" => libc::CLONE_NEWNET,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "user" => libc::CLONE_NEWUSER,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => 0x80, // CLONE_NEWTIME: not in libc for every target
        _ => crate::usage(),
    }
}

pub(crate) fn flags(types: &str) -> i32 {
    types.split(',').map(flag).fold(0, |all, one| all | one)
}

/// Opens the namespace files first: after the first join of a mount namespace the paths mean something else.
pub(crate) fn open_namespaces(source: &str, types: &str) -> Result<Vec<(File, i32)>, Errno> {
    types
        .split(',')
        .map(|kind| {
            let path = match source.parse::<u32>() {
                Ok(pid) => format!("/proc/{pid}/ns/{kind}"),
                Err(_) => format!("{source}/{kind}"),
            };
            let file = File::open(path).map_err(|e| Errno::from(e, "open"))?;
            Ok((file, flag(kind)))
        })
        .collect()
}

pub(crate) fn setns(file: &impl AsRawFd, flags: i32) -> Result<(), Errno> {
    // SAFETY: plain integers; the descriptor lives as long as `file`.
    check(unsafe { libc::setns(file.as_raw_fd(), flags) }.into(), "setns").map(drop)
}

/// Says `ok` and becomes `cmd`; without one, says so and lets the caller finish.
pub(crate) fn become_cmd(cmd: &[&str]) -> Result<String, Errno> {
    if cmd.is_empty() {
        return Ok(String::new());
    }
    println!("ok");
    // The process is about to be replaced and with it std's buffer; a closed stdout is no reason to stop.
    let _ = std::io::stdout().flush();
    exec(cmd)
}

/// execvp; returns only when it failed.
pub(crate) fn exec(cmd: &[&str]) -> Result<String, Errno> {
    let args: Vec<CString> = cmd.iter().filter_map(|arg| CString::new(*arg).ok()).collect();
    let mut pointers: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a null-terminated array of NUL-terminated strings that outlive the call.
    unsafe { libc::execvp(pointers[0], pointers.as_ptr()) };
    Err(Errno::last("exec"))
}

/// The whole of `struct clone_args` up to and including `cgroup` (kernel 5.7).
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// clone3 used like fork: the child runs `cmd`, the parent waits for it.
pub(crate) fn clone3_and_run(args: &mut CloneArgs, cmd: &[&str]) -> Result<String, Errno> {
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: no CLONE_VM and no stack given, so this is a fork; the process has one thread.
    let child = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(args), std::mem::size_of::<CloneArgs>())
    };
    if check(child, "clone3")? == 0 {
        if let Err(errno) = exec(cmd) {
            eprintln!("errno {} {}", errno.code, errno.at);
        }
        // SAFETY: ends only this child, without running the parent's exit handlers.
        unsafe { libc::_exit(127) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made; `status` is a local.
    check(unsafe { libc::waitpid(child as libc::pid_t, &mut status, 0) }.into(), "waitpid")?;
    if status != 0 { Err(Errno { code: 254, at: "child" }) } else { Ok(String::new()) }
}
