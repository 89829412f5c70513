//! Plain types that every stage shares. They know how to be written down, and nothing else.

mod alert;
mod apparmor;
mod capability;
mod container;
mod declared;
mod event;
mod identity;
mod label;
mod namespaces;
mod observed;
mod privileges;
mod process;
pub mod resources;
mod root_path;
pub mod syscall;
mod time;
mod units;

pub use alert::{
    Alert, AlertState, Attribution, CapabilitiesEvidence, ChangeEvidence, ContainerRef, Evidence,
    LimitEvidence, MetadataMark, NamespaceView, PodRef, ProcessRef, SCHEMA as ALERT_SCHEMA,
};
pub use apparmor::{AppArmorRecord, AppArmorVerdict};
pub use capability::{CAPABILITIES, CapError, CapSet, Capability, KNOWN_UP_TO, capability_label};
pub use container::{CgroupPath, Container, ContainerKey, Metadata, Pod, Runtime, SeriesLabels, short};
pub use declared::{
    Declared, DeclaredCapabilities, DeclaredIdMap, DeclaredLimits, DeclaredMount, DeclaredSeccomp,
    DeclaredSource, NamespaceSource,
};
pub use event::{Detail, EventRecord, OutOfMemory, SCHEMA as EVENT_SCHEMA, Victim};
pub use identity::{fnv1a, uuid_v7};
pub use label::{Confinement, Label, MAX_LABEL, Standing};
pub use namespaces::{NamespaceSet, NsType, Tuple};
pub use observed::{CheckedCapability, Checks, DeniedAccess, How, Observed, ObservedContainer, RefusedCall};
pub use privileges::{Against, Gain, Privileges, SeenPrivileges};
pub use process::{Ancestor, Process, ProcessKey, TICK_NS};
pub use root_path::{PathSource, RootPath};
pub use time::{Clock, rfc3339};
pub use units::bytes;

/// How much an alert matters.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; ordinary.
    Info,
    /// Unusual, or an attempt that failed.
    Notice,
    /// Should be looked at.
    Warning,
    /// An escape, or blindness.
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 4] = [Severity::Info, Severity::Notice, Severity::Warning, Severity::Critical];

    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
