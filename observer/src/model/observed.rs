//! What the agent has seen containers do: its answer to `{"ask":"observed"}`.

use serde::{Deserialize, Serialize};

use super::AppArmorVerdict;

/// What was kept, and of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// System calls are kept.
    pub syscalls: bool,
    /// Refusals by seccomp are counted.
    pub seccomp: bool,
    /// Checks of capabilities are counted.
    pub capabilities: bool,
    /// Checks of capabilities that meant no use are told apart. If not, nothing is known to be used or denied.
    pub capabilities_classified: bool,
    /// What AppArmor denies is read.
    #[serde(default)]
    pub apparmor: bool,
    pub containers: Vec<ObservedContainer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedContainer {
    pub id: String,
    /// Since when calls are kept, RFC 3339; empty where they are not.
    pub since: String,
    /// How long that is.
    pub seconds: u64,
    /// Names of the calls made, sorted.
    pub syscalls: Vec<String>,
    pub refused: Vec<RefusedCall>,
    /// For how long checks of capabilities have been counted.
    #[serde(default)]
    pub capabilities_seconds: u64,
    pub capabilities: Vec<CheckedCapability>,
    /// For how long what AppArmor denies has been read.
    #[serde(default)]
    pub apparmor_seconds: u64,
    #[serde(default)]
    pub apparmor: Vec<DeniedAccess>,
}

/// What AppArmor denied, or would have, as often as its records say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedAccess {
    /// `allowed` by a profile in complain mode.
    pub result: AppArmorVerdict,
    pub operation: String,
    /// A path, a capability, a socket, whose process; empty, as the profile, where there were too many to be told apart.
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    pub profile: String,
    /// What was denied the first time, such as `r`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denied: Option<String>,
    pub count: u64,
    /// RFC 3339.
    pub first: String,
    pub last: String,
    /// The process that was the first.
    pub pid: u32,
    pub comm: String,
}

/// A call that seccomp refused, or may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCall {
    pub syscall: String,
    pub how: How,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<String>,
    pub count: u64,
    pub first: String,
    pub last: String,
    /// The process that was the first.
    pub pid: u32,
    pub comm: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    #[default]
    Denied,
    /// An error that may have been the call's own.
    Unclassified,
    /// SIGSYS.
    Signalled,
    ThreadEnded,
}

impl How {
    /// As a person says it.
    pub fn words(self) -> &'static str {
        match self {
            How::Denied => "denied",
            How::Unclassified => "unclassified",
            How::Signalled => "SIGSYS",
            How::ThreadEnded => "thread ended",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedCapability {
    /// Its name; the number of one that has none here.
    pub capability: String,
    pub granted: u64,
    pub denied: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grants: Option<Checks>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denials: Option<Checks>,
}

/// When checks of one capability ended in one way, and whose the first was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// RFC 3339.
    pub first: String,
    /// As exact as a second.
    pub last: String,
    /// The process that was the first.
    pub pid: u32,
    pub comm: String,
    /// The inode number of the user namespace in which the first was asked for.
    pub user_namespace: u32,
}
