//! An independent witness of capability checks: bcc's `capable` (Debian's libbpf-tools), a kprobe on the kernel's `cap_capable` and
//! on its return.

use crate::host::Guard;
use crate::{host, lab, pace, wait};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often each check ended so: by the capability's name and whether it was granted.
pub type Checks = BTreeMap<(String, bool), u64>;

#[derive(Debug)]
pub struct Capable {
    process: Guard,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Capable {
    /// Whether it can be had. It is said why not where there are no kprobes, or no such program.
    pub fn can_be_had() -> bool {
        const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";
        let kind = match std::fs::read_to_string(KPROBES) {
            Ok(kind) => kind.trim().parse().expect("the number of a type of events"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{KPROBES}: {error}");
                lab::skipped("this kernel has no kprobes: no /sys/bus/event_source/devices/kprobe (ENOENT)");
                return false;
            }
        };
        if let Err(error) = open_kprobe(kind, c"cap_capable") {
            let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
            assert!(
                error.raw_os_error() == Some(libc::EPERM) && lockdown.contains("[confidentiality]"),
                "a kprobe: {error}, lockdown: {lockdown:?}"
            );
            lab::skipped("the kernel is locked down: a kprobe gives EPERM");
            return false;
        }
        lab::installed("capable")
    }

    /// Watches the processes of one v2 cgroup.
    pub fn start(cgroup: &Path) -> Self {
        let mut command = Command::new("capable");
        command.arg("-c").arg(cgroup).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guard::spawn(&mut command).expect("start capable");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let stdout = process.child().stdout.take().expect("capable's stdout");
        let stderr = process.child().stderr.take().expect("capable's stderr");
        let both: [Box<dyn BufRead + Send>; 2] =
            [Box::new(BufReader::new(stdout)), Box::new(BufReader::new(stderr))];
        for reader in both {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in reader.lines().map_while(Result::ok) {
                    lines.lock().expect("the lines").push(line);
                }
            });
        }
        Self { process, lines }
    }

    /// Its kprobes are in place: the kernel lists them. (What it prints stays in its buffer until its end.)
    pub fn wait_until_attached(&mut self) {
        let maps =
            |fd: &Path| std::fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().contains("perf_event"));
        let dir = format!("/proc/{}/fd", self.process.pid());
        let events = || {
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            entries.filter(|entry| maps(&entry.path())).count()
        };
        // Two probes, and then a buffer for each processor.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut ended = None;
        let attached = wait::until_true(pace::patience(Duration::from_secs(20)), || {
            ended = self.process.child().try_wait().expect("capable's state");
            ended.is_some() || events() >= 2 + processors
        });
        assert!(ended.is_none(), "capable: {ended:?}: {:?}", self.lines.lock());
        assert!(attached, "{} events; capable says {:?}", events(), self.lines.lock());
    }

    /// Ends it: what it saw of checks that were meant (AUDIT), and that nothing was lost.
    pub fn end(mut self) -> Checks {
        host::signal(self.process.pid(), libc::SIGINT);
        let ended = wait::until(pace::patience(Duration::from_secs(10)), || {
            self.process.child().try_wait().ok().flatten()
        });
        let status = ended.expect("capable ends at SIGINT");
        // Its last words may still be on their way through the pipe.
        wait::until_true(Duration::from_secs(2), || Arc::strong_count(&self.lines) == 1);
        let lines = self.lines.lock().expect("the lines").clone();
        assert!(status.success(), "{status}: {lines:?}");
        assert!(!lines.iter().any(|line| line.contains("lost")), "{lines:?}");
        let mut checks = Checks::new();
        for line in &lines {
            println!("capable: {line}");
            // TIME UID PID COMM CAP NAME AUDIT VERDICT; a comm may hold spaces.
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [.., name, "1", verdict @ ("allow" | "deny")] = words.as_slice() {
                *checks.entry(((*name).to_owned(), *verdict == "allow")).or_default() += 1;
            }
        }
        checks
    }
}

/// Puts a probe on the beginning of a kernel function and takes it away again: whether this kernel lets anybody.
fn open_kprobe(kind: u32, function: &CStr) -> io::Result<()> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    /// `struct perf_event_attr` of perf_event_open(2) in its second published size.
    #[repr(C)]
    struct Attr {
        kind: u32,
        size: u32,
        config: u64,
        /// `sample_period` to `bp_type`: a counter that nobody reads.
        unused: [u64; 5],
        kprobe_func: u64,
        probe_offset: u64,
    }
    let attr = Attr {
        kind,
        size: size_of::<Attr>() as u32,
        config: 0,
        unused: [0; 5],
        kprobe_func: function.as_ptr() as u64,
        probe_offset: 0,
    };
    // SAFETY: `attr` is of the size it says, and the name it points to lives until the call is over; any pid, CPU 0, no group.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    Ok(())
}
