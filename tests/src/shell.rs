//! A shell that is a container's first process and runs what the test writes to it.
//!
//! `docker exec` and `runc exec` bring processes in from outside; an attacker is usually born inside. So attacks
//! are run by this shell: their ancestors end at the container's init, and no runtime takes part.

use crate::{pace, scratch};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where its directory is bound inside the container.
pub const MOUNTED_AT: &str = "/ctl";

const SCRIPT: &str = "\
while :; do
  read -r line </ctl/cmd || continue
  ( eval \"$line\" ) >/ctl/out 2>&1 </dev/null
  echo $? >/ctl/rc
done
";

/// The container's first command.
pub const ARGS: [&str; 2] = ["sh", "/ctl/init.sh"];

/// The host's end. Make it before the container, bind `dir` at [`MOUNTED_AT`], and run [`ARGS`].
#[derive(Debug)]
pub struct Shell {
    dir: PathBuf,
}

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    pub code: i32,
    pub output: String,
}

impl Said {
    /// Panics unless the command succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "the command in the container failed: {}", self.output);
        self.output
    }

    /// The first number in the output: for commands that begin with `echo $$`.
    pub fn pid(&self) -> u32 {
        let word = self.output.split_whitespace().next().unwrap_or_default();
        word.parse().unwrap_or_else(|_| panic!("no pid at the start of {:?}", self.output))
    }
}

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

impl Shell {
    pub fn new() -> Self {
        let dir = scratch::subdir("ctl");
        fs::write(dir.join("init.sh"), SCRIPT).expect("write the shell's script");
        for name in ["cmd", "rc"] {
            let path = CString::new(dir.join(name).as_os_str().as_encoded_bytes()).expect("a path");
            // SAFETY: a NUL-terminated path.
            assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0, "mkfifo {path:?}");
        }
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs one line inside and waits for its end, at most 60 s.
    pub fn run(&self, line: &str) -> Said {
        self.start(line);
        self.wait(Duration::from_secs(60))
    }

    /// Hands the line over without waiting; [`Shell::wait`] must follow before the next line.
    pub fn start(&self, line: &str) {
        assert!(!line.contains('\n'), "one line at a time: {line:?}");
        let mut pipe = crate::wait::until(Duration::from_secs(10), || {
            // Refused with ENXIO while nobody reads, which is while the container is still starting.
            File::options().write(true).custom_flags(libc::O_NONBLOCK).open(self.dir.join("cmd")).ok()
        })
        .expect("the container's shell does not listen");
        pipe.write_all(format!("{line}\n").as_bytes()).expect("write to the container's shell");
    }

    pub fn wait(&self, limit: Duration) -> Said {
        let deadline = Instant::now() + pace::patience(limit);
        // Read and write, so that neither the open nor a writer's close ends the wait.
        let mut pipe = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.dir.join("rc"))
            .expect("open the shell's answer");
        let mut answer = String::new();
        while !answer.contains('\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no answer from the container's shell; so far: {}", self.output());
            let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, a local.
            unsafe { libc::poll(&mut poll, 1, left.as_millis().min(1000) as i32) };
            let mut buffer = [0; 64];
            if let Ok(n) = pipe.read(&mut buffer) {
                answer.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        }
        Said { code: answer.trim().parse().unwrap_or(-1), output: self.output() }
    }

    fn output(&self) -> String {
        // Lossy: what hostile commands say may be no UTF-8.
        let bytes = fs::read(self.dir.join("out")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }
}
