//! Capabilities are a thread's own, and by now there are several threads: those of the sinks, the pipeline's, the one that
//! asks CRI runtimes. Each must give up its own, so each is sent a signal whose handler does that (as libpsx and the C
//! library's setuid do it). Whether all have done it is then read from /proc.

use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::ProtectionError;
use crate::model::CapSet;

/// What running needs, measured by starting with each one removed: docs/deploy.md says what fails without it. Hooks are
/// still armed while the agent runs, hence BPF and PERFMON.
pub const NEEDED: CapSet = CapSet::of(&[
    2,  // DAC_READ_SEARCH
    19, // SYS_PTRACE
    23, // SYS_NICE
    38, // PERFMON
    39, // BPF
]);

/// How long all threads together may take.
const PATIENCE: Duration = Duration::from_secs(1);
const LAST_CAPABILITY: u64 = 63;

static KEEP: AtomicU64 = AtomicU64::new(0);

/// Takes every capability but `keep` from all threads; what is left of `keep`.
pub fn keep_only(keep: CapSet) -> Result<CapSet, ProtectionError> {
    let mut keep = keep;
    keep.0 &= permitted(io_thread()).map_err(ProtectionError::Threads)?;
    KEEP.store(keep.0, Ordering::SeqCst);
    let signal = libc::SIGRTMIN() + 6;
    handle(signal, reduce as *const () as libc::sighandler_t)?;
    let result = ask_all(signal, keep);
    // A thread that was slow to run was asked more than once, and what is still on its way to it would end the process if the
    // signal meant again what it meant before. Ignored, it is thrown away.
    handle(signal, libc::SIG_IGN)?;
    result.map(|()| keep)
}

/// The calling thread, as /proc names it.
fn io_thread() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

fn handle(signal: i32, handler: libc::sighandler_t) -> Result<(), ProtectionError> {
    // SAFETY: all zeros is a valid value of this plain C structure.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        // Calls that the signal interrupts go on, where the kernel can do that.
        action.sa_flags = libc::SA_RESTART;
        if libc::sigaction(signal, &action, std::ptr::null_mut()) != 0 {
            return Err(ProtectionError::Signal(io::Error::last_os_error()));
        }
        Ok(())
    }
}

/// Until none has more than `keep`: a thread that was just being made has its maker's, old or new.
fn ask_all(signal: i32, keep: CapSet) -> Result<(), ProtectionError> {
    let deadline = Instant::now() + PATIENCE;
    let process = std::process::id() as i32;
    loop {
        let mut left = None;
        for thread in threads().map_err(ProtectionError::Threads)? {
            // One that has ended meanwhile has nothing any more.
            if permitted(thread).is_ok_and(|has| has & !keep.0 != 0) {
                left = Some(thread);
                // SAFETY: plain integers.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
            }
        }
        match left {
            None => return Ok(()),
            Some(thread) if Instant::now() > deadline => return Err(ProtectionError::Kept(thread)),
            Some(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn threads() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc/self/task")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn permitted(thread: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapPrm in a thread's status"))
}

/// `struct __user_cap_header_struct` and `__user_cap_data_struct` of include/uapi/linux/capability.h, version 3.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// In a signal handler: system calls and nothing else, `errno` as it was.
extern "C" fn reduce(_: i32) {
    const VERSION_3: u32 = 0x2008_0522;
    let keep = KEEP.load(Ordering::SeqCst);
    let half = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [half(keep as u32), half((keep >> 32) as u32)];
    // SAFETY: plain integers; pointers to locals of the layout that the version says. 0 is the calling thread. errno's
    // place is the thread's own.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        // Nobody runs another program here; all the same, none should get back what was given up. Without SETPCAP the
        // bounding set stays, and no_new_privs, which comes with the filter, does the same.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for capability in (0..=LAST_CAPABILITY).filter(|number| keep & (1 << number) == 0) {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr());
        *errno = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: &str = "OBSERVER_TEST_GIVES_UP";

    /// In a process of its own, because it cannot be undone: this test binary, started again.
    fn start_again(test: &str) {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", &format!("protection::capabilities::tests::{test}"), "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("start this test again");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
    }

    /// A thread that does not come to answer in time, and gets all its signals afterwards.
    #[test]
    fn signals_that_come_late_end_nobody() {
        if std::env::var_os(INSIDE).is_none() {
            return start_again("signals_that_come_late_end_nobody");
        }
        let mine = permitted(io_thread()).expect("this thread's status");
        let (blocked, is_blocked) = std::sync::mpsc::channel::<()>();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let slow = std::thread::spawn(move || {
            // SAFETY: plain C structures of our own; all zeros is a valid mask.
            let mask = |how| unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigaddset(&mut set, libc::SIGRTMIN() + 6);
                assert_eq!(libc::pthread_sigmask(how, &set, std::ptr::null_mut()), 0);
            };
            mask(libc::SIG_BLOCK);
            blocked.send(()).expect("told");
            let _ = ended.recv();
            mask(libc::SIG_UNBLOCK);
        });
        is_blocked.recv().expect("it is blocked");
        let result = keep_only(NEEDED);
        // Who has nothing more than that is asked nothing.
        assert_eq!(matches!(result, Err(ProtectionError::Kept(_))), mine & !NEEDED.0 != 0, "{result:?}");
        drop(end);
        slow.join().expect("a thread that lives on");
    }

    #[test]
    fn every_thread_gives_up() {
        if std::env::var_os(INSIDE).is_some() {
            let mine = permitted(io_thread()).expect("this thread's status");
            let keep = CapSet(mine & NEEDED.0);
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let waits = std::thread::spawn(move || ended.recv().is_err());
            assert_eq!(keep_only(NEEDED).expect("given up"), keep);
            // One that was sent too many.
            // SAFETY: plain integers.
            assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGRTMIN() + 6) }, 0);
            let sets: Vec<u64> =
                threads().expect("threads").into_iter().filter_map(|it| permitted(it).ok()).collect();
            assert!(sets.len() >= 2, "{sets:?}");
            assert!(sets.iter().all(|set| *set == keep.0), "{sets:x?}");
            let later = std::thread::spawn(|| permitted(io_thread()).expect("a new thread's status"));
            assert_eq!(later.join().expect("a new thread"), keep.0);
            // One that comes late, to whoever gets it, ends nobody.
            // SAFETY: plain integers.
            assert_eq!(unsafe { libc::kill(std::process::id() as i32, libc::SIGRTMIN() + 6) }, 0);
            drop(end);
            assert!(waits.join().expect("a waiting thread, undisturbed"));
            return;
        }
        start_again("every_thread_gives_up");
    }
}
