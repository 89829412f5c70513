//! One run of one machine under QEMU's emulation.

use super::gdb::Debugger;
use anyhow::{Context, Result, anyhow, bail};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Without what only costs time here: what works around processors' faults (page tables are switched at every system
/// call), waiting for RCU the thrifty way (namespaces and cgroups are removed by it), and programs at random addresses
/// (what has been translated of one run is of use to the next).
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet rdinit=/init mitigations=off rcupdate.rcu_expedited=1 \
                            norandmaps";

/// What to boot, and how.
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub image: &'a Path,
    pub disks: &'a [Disk<'a>],
    /// Words for the kernel's command line.
    pub append: String,
    /// Where its words go.
    pub logs: &'a Path,
    pub limit: Duration,
    /// What the third and the fourth serial line are kept as.
    pub files: [&'a str; 2],
}

/// A file that the machine sees as `/dev/disk/by-id/virtio-NAME`.
pub struct Disk<'a> {
    pub name: &'a str,
    pub file: &'a Path,
    pub read_only: bool,
}

/// How it went.
pub struct Outcome {
    /// What the tests wrote.
    pub lines: Vec<String>,
    /// The exit code of the test program; none if the machine ended before.
    pub code: Option<i32>,
    pub took: Duration,
    pub console: PathBuf,
    /// Of the names that the machine has for them.
    pub files: [PathBuf; 2],
}

/// What the tests' own words say of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    /// Those that said that they cannot run there.
    pub skipped: u32,
}

/// How the kernel says that it met a breakpoint which nobody has set (any more).
const STRAY_BREAKPOINT: &str = "Oops: int3";

impl Outcome {
    /// Whether the emulator ended the machine, not the tests. The kernel changes its own code under way with
    /// breakpoints, which the other processor, emulated by another thread, now and then runs into after they have gone.
    pub fn failed_emulation(&self) -> bool {
        let console = fs::read(&self.console).unwrap_or_default();
        self.code.is_none() && String::from_utf8_lossy(&console).contains(STRAY_BREAKPOINT)
    }

    /// None if the machine ended before its tests, or there were none.
    pub fn counts(&self) -> Option<Counts> {
        let result = self.lines.iter().find_map(|line| line.strip_prefix("test result: "))?;
        let number = |what: &str| {
            let part = result.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
            part.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
        };
        let skipped = self.lines.iter().filter(|line| line.contains("SKIPPED: ")).count() as u32;
        let passed: u32 = number("passed");
        Some(Counts { passed: passed.saturating_sub(skipped), failed: number("failed"), skipped })
    }
}

impl Machine<'_> {
    /// Boots it, shows what the tests say as they say it, and waits for its end.
    pub fn run(&self) -> Result<Outcome> {
        fs::create_dir_all(self.logs)?;
        let log = |name: &str| self.logs.join(name);
        let (console, files) = (log("console.log"), self.files.map(log));
        let started = Instant::now();
        let mut qemu = Command::new("qemu-system-x86_64");
        // Emulation, because hardware virtualisation is not to be had everywhere, and where nested may hang. Of an old
        // processor, because programs use what a new one has to be faster, and emulated it makes them slower.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-m", "2048", "-smp", "2"])
            .args(["-nographic", "-nodefaults", "-no-reboot", "-monitor", "none"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests"]);
        let debugger = Debugger::new();
        qemu.arg("-gdb").arg(debugger.device());
        for file in &files {
            qemu.arg("-serial").arg(format!("file:{}", file.display()));
        }
        for Disk { name, file, read_only } in self.disks {
            let only = if *read_only { "on" } else { "off" };
            // `unsafe` leaves out flushes, which only this machine's own fall would make a difference to.
            let drive =
                format!("if=none,id={name},format=raw,cache=unsafe,readonly={only},file={}", file.display());
            qemu.arg("-drive")
                .arg(drive)
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
        }
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.image);
        qemu.arg("-append").arg(format!("{COMMAND_LINE} {}", self.append));
        let mut guest = Guest(
            qemu.stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start qemu-system-x86_64")?,
        );
        let output = guest.0.stdout.take().ok_or_else(|| anyhow!("QEMU has no output"))?;
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if say.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let mut lines = Vec::new();
        loop {
            let left = self.limit.saturating_sub(started.elapsed());
            match said.recv_timeout(left) {
                Ok(line) => {
                    println!("{line}");
                    if let Some(answer) = debugger.answer(&line) {
                        println!("{answer}");
                    }
                    lines.push(line);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!(
                        "the machine was still running after {:?}; its console: {}",
                        self.limit,
                        console.display()
                    )
                }
            }
        }
        guest.0.wait()?;
        let code = lines.last().and_then(|line| line.strip_prefix("exit ")?.parse().ok());
        Ok(Outcome { lines, code, took: started.elapsed(), console, files })
    }
}

/// Ends with us.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_was_skipped() {
        let said = "running 4 tests\ntest a ... SKIPPED: no b\nok\ntest c ... LEFT OUT: d: e\nok\ntest f ... FAILED\n\
                    test g ... ok\ntest result: FAILED. 3 passed; 1 failed; 0 ignored; finished in 1.50s\nexit 101";
        let outcome = Outcome {
            lines: said.lines().map(str::to_owned).collect(),
            code: None,
            took: Duration::ZERO,
            console: PathBuf::new(),
            files: [PathBuf::new(), PathBuf::new()],
        };
        assert_eq!(outcome.counts(), Some(Counts { passed: 2, failed: 1, skipped: 1 }));
    }
}
