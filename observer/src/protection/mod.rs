//! The agent protects itself: once the hooks are attached and the host has been read, it gives up what running does not
//! need. A flaw in what reads hostile data then leads to less.
//!
//! The capabilities are those that were measured (docs/deploy.md); the system calls are those of `seccomp.rs`. What
//! cannot be given up is told and no reason to end: an agent that watches is worth more than one that does not.

mod capabilities;
mod seccomp;

use crate::telemetry::log;

use capabilities::NEEDED;

/// Why something could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum ProtectionError {
    #[error("cannot read this process's threads: {0}")]
    Threads(std::io::Error),
    #[error("cannot ask the threads: {0}")]
    Signal(std::io::Error),
    #[error("thread {0} kept its capabilities")]
    Kept(i32),
    #[error("the filter cannot be made: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("the kernel refuses the filter: {0}")]
    Refused(std::io::Error),
    #[error("thread {0} has a filter of its own")]
    Thread(i64),
}

/// For all threads that there are, and all that they will make.
pub fn give_up() {
    match capabilities::keep_only(NEEDED) {
        Ok(kept) => log::info!("capabilities given up", kept = kept.names().join(" ")),
        Err(error) => log::warn!("capabilities are kept", error),
    }
    match seccomp::install() {
        Ok(()) => log::info!("system calls restricted"),
        Err(error) => log::warn!("system calls are not restricted", error),
    }
}
