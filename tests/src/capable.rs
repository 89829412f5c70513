//! An independent witness of capability checks: bcc's `capable` (Debian's libbpf-tools), a kprobe on the kernel's `cap_capable` and
//! on its return.

use crate::host::Guard;
use crate::{host, lab, pace, wait};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
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
        if let Err(error) = std::fs::read(KPROBES) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{KPROBES}: {error}");
            lab::skipped("this kernel has no kprobes: no /sys/bus/event_source/devices/kprobe (ENOENT)");
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
        let attached =
            wait::until_true(pace::patience(Duration::from_secs(20)), || events() >= 2 + processors);
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
