//! As much of bpf(2) as the bench needs: an empty program on a syscall's exit, and what the kernel says about the
//! agent's programs.

use crate::Result;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_ENABLE_STATS: libc::c_int = 32;

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The call, with the head of `union bpf_attr` as words; what follows is zero.
fn bpf(command: libc::c_int, words: &[u64]) -> libc::c_long {
    let mut attr = [0u64; 16];
    attr[..words.len()].copy_from_slice(words);
    // SAFETY: an attribute of the size that is said; what its pointers lead to is alive in the callers.
    unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of_val(&attr)) }
}

/// Keeps the kernel's run-time statistics on while it lives. The descriptor and not the sysctl: it goes with this
/// process, however that ends.
pub fn enable_stats() -> io::Result<OwnedFd> {
    const BPF_STATS_RUN_TIME: u64 = 0;
    owned(bpf(BPF_ENABLE_STATS, &[BPF_STATS_RUN_TIME]))
}

/// A program that does nothing: what the cheapest observer possible would cost.
#[derive(Debug)]
pub struct EmptyProgram {
    _event: OwnedFd,
    _program: OwnedFd,
}

impl EmptyProgram {
    /// On `syscalls:sys_exit_NAME`.
    pub fn attach(call: &str) -> Result<Self> {
        const BPF_PROG_TYPE_TRACEPOINT: u32 = 5;
        let program = Self::load(BPF_PROG_TYPE_TRACEPOINT)?;
        let event = attach(&program, event_id(&format!("events/syscalls/sys_exit_{call}/id"))?)?;
        Ok(Self { _event: event, _program: program })
    }

    /// On a raw tracepoint.
    pub fn attach_raw(tracepoint: &CStr) -> Result<Self> {
        const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
        const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
        let program = Self::load(BPF_PROG_TYPE_RAW_TRACEPOINT)?;
        let words = [tracepoint.as_ptr() as u64, two(program.as_raw_fd() as u32, 0)];
        let event = owned(bpf(BPF_RAW_TRACEPOINT_OPEN, &words))?;
        Ok(Self { _event: event, _program: program })
    }

    fn load(kind: u32) -> io::Result<OwnedFd> {
        // r0 = 0; exit
        let instructions = [0xb7u64, 0x95];
        let license: &CStr = c"GPL";
        let words =
            [two(kind, instructions.len() as u32), instructions.as_ptr() as u64, license.as_ptr() as u64];
        owned(bpf(BPF_PROG_LOAD, &words))
    }
}

/// Reads a number from a tracefs that is mounted nowhere: fsopen, fsconfig, fsmount (Linux 5.2).
fn event_id(path: &str) -> Result<u64> {
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const CLOEXEC: libc::c_uint = 1;
    let name: &CStr = c"tracefs";
    // SAFETY: a NUL-terminated name and a flag.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), CLOEXEC) })?;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes no key and no value.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) };
    if made != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: a configured context, a flag, no mount attributes.
    let mount = owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })?;
    Ok(fs::read_to_string(format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()))?.trim().parse()?)
}

/// `struct perf_event_attr` in its first published size (64 bytes), which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

fn attach(program: &OwnedFd, event_id: u64) -> Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    let mut attr = PerfEventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEventAttr>() as u32,
        config: event_id,
        ..Default::default()
    };
    // The sample period: as the agent attaches.
    attr.rest[0] = 1;
    // SAFETY: `attr` is of the size it says; any pid, CPU 0, no group.
    let event = owned(unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)
    })?;
    // SAFETY: both descriptors are open; the requests take a descriptor and nothing.
    let refused = unsafe {
        libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) != 0
            || libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) != 0
    };
    if refused { Err(io::Error::last_os_error().into()) } else { Ok(event) }
}

/// What the kernel has counted of one program while the statistics were on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    pub id: u32,
    pub name: String,
    pub runs: u64,
    pub run_ns: u64,
}

/// The programs that a process holds.
pub fn programs_of(pid: u32) -> Vec<Program> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let ids = infos.filter_map(|info| {
        let text = fs::read_to_string(info.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok())
    });
    let mut programs: Vec<Program> = ids.filter_map(|id| program(id).ok()).collect();
    programs.sort();
    // A link names its program as well.
    programs.dedup_by_key(|program| program.id);
    programs
}

fn program(id: u32) -> io::Result<Program> {
    // Words of `struct bpf_prog_info` (include/uapi/linux/bpf.h), up to run_cnt (Linux 5.1).
    const NAME: usize = 8;
    const RUN_NS: usize = 24;
    const RUNS: usize = 25;
    let program = owned(bpf(BPF_PROG_GET_FD_BY_ID, &[u64::from(id)]))?;
    let mut info = [0u64; 26];
    let words = [two(program.as_raw_fd() as u32, size_of_val(&info) as u32), info.as_mut_ptr() as u64];
    if bpf(BPF_OBJ_GET_INFO_BY_FD, &words) != 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel wrote through the pointer that `words` holds as a number.
    let info = std::hint::black_box(info);
    let name: Vec<u8> = info[NAME..NAME + 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
    Ok(Program { id, name, runs: info[RUNS], run_ns: info[RUN_NS] })
}
