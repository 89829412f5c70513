//! Where a test begins: root, one test at a time, and short ways to what nearly every test starts.

use crate::agent::{Agent, Config};
use crate::runc::Container;
use crate::spec::Spec;
use crate::{host, rootfs};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Two agents at once would judge each other's tests.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Held by a test from its start to its end.
#[derive(Debug)]
pub struct Lab {
    pub attacks: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// `None`, and said so, where the test cannot run. `attacks` is `env!("CARGO_BIN_EXE_observer-attacks")`.
    pub fn enter(attacks: &str) -> Option<Self> {
        if !require_root() {
            return None;
        }
        // A failed test poisons the turn, and hurts nobody else by it.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        host::become_subreaper();
        Some(Self { attacks: attacks.into(), _turn: turn })
    }

    /// An agent that the test leaves as it is.
    pub fn agent(&self) -> Agent {
        Agent::share()
    }

    /// An agent started now, for a test that stops or kills it, or that is about its start.
    pub fn fresh_agent(&self) -> Agent {
        Agent::start()
    }

    /// The same, and no other agent of ours beside it.
    pub fn only_agent(&self, config: Config) -> Agent {
        Agent::end_kept();
        Agent::with(config)
    }

    pub fn container(&self, spec: Spec) -> Container {
        Container::start(&self.attacks, spec)
    }

    pub fn run_to_end(&self, spec: &Spec) -> (String, std::process::Output) {
        Container::run_to_end(&self.attacks, spec)
    }

    pub fn rootfs(&self) -> &'static Path {
        rootfs::get(&self.attacks)
    }
}

/// Live tests need root. Without it, the kernel must say so too: the errno is asserted, so that a test never skips
/// itself where it could have run.
pub fn require_root() -> bool {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } == 0 {
        return true;
    }
    // SAFETY: plain integers.
    let refused = unsafe { libc::unshare(libc::CLONE_NEWNS) } == -1;
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert!(refused && errno == Some(libc::EPERM), "not root, yet a mount namespace was made ({errno:?})");
    skipped("not root: unshare(CLONE_NEWNS) gives EPERM");
    false
}

/// That a whole test is. Said on the real stderr: the test runner keeps what a passing test prints to itself.
pub fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// That a test leaves something out, and goes on.
pub fn left_out(what: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {what}: {reason}");
}

/// Whether a program is there. When it is not, that is asserted and said.
pub fn installed(program: &str) -> bool {
    missing(program).map(|reason| skipped(&reason)).is_none()
}

/// That a program is not there, with the errno asserted.
pub fn missing(program: &str) -> Option<String> {
    let error = std::process::Command::new(program).arg("--version").output().err()?;
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{program}: {error}");
    Some(format!("{program} is not installed (ENOENT)"))
}
