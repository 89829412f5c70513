//! Running into limits: of memory, and of tasks. Bounded in everything, and whoever makes them is the first that the kernel
//! chooses, should the machine itself run out of memory.

use crate::raw;
use crate::sys::{Errno, check};
use std::arch::asm;
use std::time::Duration;

/// More than any test's limit, and less than any machine has.
const MOST_MIB: u64 = 256;
const MOST_TASKS: u64 = 512;
const MOST_TRIES: u64 = 100_000;

/// Takes memory, page by page, and keeps it for a while. A cgroup's limit ends it before that.
pub(crate) fn hog(mib: u64, seconds: u64) -> Result<String, Errno> {
    std::fs::write("/proc/self/oom_score_adj", "1000").map_err(|e| Errno::from(e, "oom_score_adj"))?;
    let mut memory = Vec::new();
    for _ in 0..mib.min(MOST_MIB) {
        // Not zeros, which the kernel would give without giving a page.
        memory.push(vec![1u8; 1 << 20]);
    }
    println!("ok {}", memory.len());
    std::thread::sleep(Duration::from_secs(seconds));
    std::hint::black_box(&memory);
    std::process::exit(0)
}

/// Fills MIB again and again with memory that the kernel may take back (MADV_FREE), for a while: at a limit below that, it has
/// to, and nobody is killed.
pub(crate) fn reclaim(mib: u64, seconds: u64) -> Result<String, Errno> {
    let length = (mib.min(MOST_MIB) << 20) as usize;
    // SAFETY: a new mapping that nobody else knows.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(Errno::last("mmap"));
    }
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    while std::time::Instant::now() < end {
        for megabyte in 0..length >> 20 {
            // SAFETY: a part of the mapping above, in whole pages.
            unsafe {
                let part = memory.cast::<u8>().add(megabyte << 20);
                std::ptr::write_bytes(part, 1, 1 << 20);
                check(libc::madvise(part.cast(), 1 << 20, libc::MADV_FREE).into(), "madvise")?;
            }
        }
    }
    Ok(String::new())
}

/// Uses all the CPU time that it gets, for a while.
pub(crate) fn spin(seconds: u64) -> Result<String, Errno> {
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    while std::time::Instant::now() < end {
        std::hint::spin_loop();
    }
    Ok(String::new())
}

/// Forks until no more may be, then asks `tries` times more by CALL, and once more after a pause. The children do nothing, and end
/// with this. Prints how many forks were refused.
pub(crate) fn bomb(call: &str, tries: u64) -> Result<String, Errno> {
    let mut children = Children(Vec::new());
    let mut refused = 0;
    while refused == 0 {
        // SAFETY: the process has one thread; the child only waits.
        match unsafe { libc::fork() } {
            -1 => {
                again(Errno::last("fork"))?;
                refused += 1;
            }
            0 => wait_for_the_end(),
            child => children.0.push(child),
        }
        if children.0.len() as u64 > MOST_TASKS {
            return Err(Errno { code: 253, at: "no limit" });
        }
    }
    for _ in 0..tries.min(MOST_TRIES) {
        again(one_more(call)?)?;
        refused += 1;
    }
    std::thread::sleep(Duration::from_millis(200));
    again(one_more(call)?)?;
    Ok(format!("{}", refused + 1))
}

/// With another user's id and RLIMIT_NPROC for one process: a fork is refused, be there room in the cgroup or not.
pub(crate) fn nproc(user: u64) -> Result<String, Errno> {
    let one = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: a local that outlives the call; then plain integers.
    unsafe {
        check(libc::setrlimit(libc::RLIMIT_NPROC, &raw const one).into(), "setrlimit")?;
        check(libc::setuid(user as libc::uid_t).into(), "setuid")?;
    }
    one_more("clone").and_then(again).map(|()| String::new())
}

/// EAGAIN is what was wanted.
fn again(errno: Errno) -> Result<(), Errno> {
    if errno.code == libc::EAGAIN { Ok(()) } else { Err(errno) }
}

/// A fork that is to be refused; what is made nevertheless ends at once, and is a failure.
fn one_more(call: &str) -> Result<Errno, Errno> {
    const NOT_REFUSED: Errno = Errno { code: 253, at: "was not refused" };
    let chld = libc::SIGCHLD as u64;
    let result = match call {
        "clone" => syscall(libc::SYS_clone, chld, 0),
        "clone3" => {
            let args = crate::sys::CloneArgs { exit_signal: chld, ..Default::default() };
            syscall(libc::SYS_clone3, &raw const args as u64, size_of_val(&args) as u64)
        }
        "fork" => syscall(libc::SYS_fork, 0, 0),
        "vfork" => vfork(),
        "clone32" => raw::int80(raw::CLONE, chld as u32, 0).into(),
        _ => crate::usage(),
    };
    match result {
        // SAFETY: ends only this child, without running the parent's exit handlers.
        0 => unsafe { libc::_exit(0) },
        1.. => Err(NOT_REFUSED),
        error => Ok(Errno { code: -error as i32, at: "fork" }),
    }
}

fn syscall(number: i64, first: u64, second: u64) -> i64 {
    // SAFETY: forks, without a stack or shared memory; what is pointed to outlives the call.
    match unsafe { libc::syscall(number, first, second, 0, 0, 0) } {
        -1 => -i64::from(Errno::last("fork").code),
        result => result,
    }
}

/// A vfork whose child, should there be one, ends before it touches the memory that it shares.
fn vfork() -> i64 {
    let result: i64;
    // SAFETY: the child makes one more system call, with registers alone.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_vfork => result,
            out("rdi") _,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

fn wait_for_the_end() -> ! {
    // SAFETY: plain integers. Whatever becomes of the parent, no child stays.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(60);
        loop {
            libc::pause();
        }
    }
}

struct Children(Vec<libc::pid_t>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &self.0 {
            // SAFETY: children of this process that nobody has reaped yet.
            unsafe {
                libc::kill(*child, libc::SIGKILL);
                libc::waitpid(*child, std::ptr::null_mut(), 0);
            }
        }
    }
}
