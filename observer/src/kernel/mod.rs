//! The kernel side as the agent sees it: what this kernel allows, offsets, programs, maps and rings.

mod abilities;
mod attach;
mod audit_log;
mod audit_record;
mod btf;
mod calls;
mod capabilities;
mod features;
mod load;
mod maps;
mod pretend;
mod skipped;
mod tracefs;

use std::{io, path::PathBuf};

pub use attach::{Hook, Probe};
pub use audit_log::AuditLog;
pub use btf::VMLINUX;
pub use calls::{Armed, CallTable};
pub use capabilities::CapabilityTable;
pub use features::{FEATURES, Feature, Tier};
pub use load::{FeatureStatus, Kernel, LoadOptions, Rings};
pub use maps::{LossCounters, SlotTable};
pub use pretend::{PREFIXES as PRETEND_PREFIXES, Pretend};
pub use skipped::Skipped;

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "cannot read the kernel's types from {path}: {what} (a kernel built with CONFIG_DEBUG_INFO_BTF is needed)"
    )]
    Btf { path: PathBuf, what: String },
    #[error("this kernel has no {}", .0.join(", "))]
    MissingFields(Vec<String>),
    #[error("kernel memory cannot be read: {0}")]
    CannotRead(String),
    /// Why a tier is out of the question, without trying it.
    #[error("{0}")]
    Unable(String),
    #[error("cannot load the kernel programs: {0}")]
    Load(String),
    #[error("{program} cannot be {step} on {hook}: {what}")]
    Probe { program: String, step: &'static str, hook: String, what: String },
    #[error("no tracefs at /sys/kernel/tracing, and none can be mounted: {0}")]
    Tracefs(io::Error),
    #[error("the kernel's audit log cannot be {step}: {why}")]
    AuditLog { step: &'static str, why: String },
    #[error("map {name}: {what}")]
    Map { name: &'static str, what: String },
    #[error("pid 1 was not found by walking up from this process: the host's namespaces are unknown")]
    NoHost,
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}
