//! `observer record`, and what a replay of it tells.

use crate::agent::{self, Config};
use crate::host::{self, Guard};
use crate::wait;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Stdio};
use std::time::Duration;

/// A recording that is being made.
pub struct Recording {
    path: String,
    record: Guard,
    /// Kept open: the recorder would end when it has something to say.
    said: BufReader<ChildStderr>,
}

impl Recording {
    /// Returns once it is armed.
    pub fn start(path: &Path, config: &Config) -> Recording {
        let path = path.display().to_string();
        let mut command =
            agent::observer(&["record", "--output", &path, "--duration", "60", "--config", config.arg()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut record = Guard::spawn(&mut command).expect("start observer record");
        let mut said = BufReader::new(record.child().stderr.take().expect("the recorder's stderr"));
        // Before it says that, it says what is off on this kernel.
        let mut line = String::new();
        while !line.starts_with("recording to ") {
            line.clear();
            assert!(
                said.read_line(&mut line).expect("read what the recorder says") > 0,
                "it was never armed"
            );
        }
        Recording { path, record, said }
    }

    /// Ends it, as Ctrl-C does.
    pub fn end(self) -> Recorded {
        let Recording { path, mut record, said } = self;
        host::signal(record.pid(), libc::SIGINT);
        let ended = wait::until(Duration::from_secs(20), || record.child().try_wait().ok().flatten());
        assert_eq!(ended.expect("observer record did not end").code(), Some(0));
        drop(said);
        Recorded { path }
    }
}

/// A whole recording.
pub struct Recorded {
    path: String,
}

impl Recorded {
    /// The alerts of a replay; of two, which must tell the same, byte for byte.
    pub fn replay(&self) -> Vec<Value> {
        let replay = || {
            let output = agent::observer(&["replay", &self.path]).output().expect("run observer replay");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let (first, second) = (replay(), replay());
        assert_eq!(first, second, "two replays differ");
        let alert = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        first.lines().map(alert).collect()
    }
}
