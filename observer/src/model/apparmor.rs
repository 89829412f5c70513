//! What AppArmor says that it did about an access.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it answered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AppArmorVerdict {
    #[default]
    Denied,
    /// Denied by a profile in kill mode, which ends the process as well.
    Killed,
    /// By a profile in complain mode, which would have denied it otherwise.
    Allowed,
}

impl AppArmorVerdict {
    /// The mode of the profile, as labels have it.
    pub fn mode(self) -> &'static str {
        match self {
            AppArmorVerdict::Denied => "enforce",
            AppArmorVerdict::Killed => "kill",
            AppArmorVerdict::Allowed => "complain",
        }
    }

    /// As a person says it.
    pub fn words(self) -> &'static str {
        match self {
            AppArmorVerdict::Denied => "denied",
            AppArmorVerdict::Killed => "killed",
            AppArmorVerdict::Allowed => "allowed",
        }
    }
}

/// One of its records in the kernel's audit log; texts are bounded, and a container's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppArmorRecord {
    /// Kernel time, ns; as exact as the log, some milliseconds.
    pub time_ns: u64,
    /// How many of them there were, one after the other.
    pub count: u64,
    /// In the first pid namespace.
    pub pid: u32,
    pub comm: String,
    pub verdict: AppArmorVerdict,
    /// Such as `open`, `exec`, `capable`, `mount`, `ptrace`.
    pub operation: String,
    /// Such as `file`, `cap`, `net`; kernels before 6.0 do not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    /// The profile, or the stack of them.
    pub profile: String,
    /// A path; of a socket, its family and type; of a signal or a resource limit, which one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requested: Option<String>,
    /// What of `requested` was denied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denied: Option<String>,
    /// Such as `CAP_SYS_ADMIN`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capability: Option<String>,
    /// The label of who the access was to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<String>,
}

impl AppArmorRecord {
    /// What the access was to: a capability, a path, a socket, whose process. Empty where the record does not say it.
    pub fn what(&self) -> String {
        let parts = [&self.capability, &self.name, &self.peer];
        parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Whether it is the same process's same access once more.
    pub fn repeats(&self, other: &Self) -> bool {
        *self == Self { time_ns: self.time_ns, count: self.count, ..other.clone() }
    }
}
