//! What a container was declared to be: the runtime's configuration, not what the kernel enforces now.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a namespace of a container comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum NamespaceSource {
    /// Made for the container.
    Own,
    /// Another's: the file, process or container whose namespace it joins, as the configuration names it.
    Joined { target: String },
    /// The runtime's own, which is the host's unless the runtime is in a container itself.
    Host,
}

/// The five capability sets, a bit for each number of include/uapi/linux/capability.h.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredCapabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
    /// Names that this version does not know, sorted; they have no bit above.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unknown: Vec<String>,
}

/// A seccomp filter as declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredSeccomp {
    /// What happens to a call that no rule names, such as `SCMP_ACT_ERRNO`; absent where only a file is named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default_action: Option<String>,
    /// Rules, each an action for some calls.
    pub rules: usize,
    /// Names of system calls in all rules together.
    pub syscalls: usize,
    /// Some calls are decided by another process (`SCMP_ACT_NOTIFY`).
    #[serde(default)]
    pub notifies: bool,
    /// The profile's file, where the configuration names one instead of holding it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub profile_path: Option<String>,
}

/// A mount as declared. Paths are as written there: `source` is the host's, `destination` the container's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredMount {
    pub destination: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// The file system; `bind` for a bind mount.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub fs_type: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub options: Vec<String>,
}

/// Limits as declared; absent where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredLimits {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_bytes: Option<u64>,
    /// Memory and swap together, as v1 counts them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_and_swap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_quota_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_period_us: Option<u64>,
    /// v1's shares, 1024 for an ordinary container.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_shares: Option<u64>,
    /// In the notation of cpuset.cpus.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpuset_cpus: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pids: Option<u64>,
}

/// A range of user or group ids of the container's user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredIdMap {
    pub container_id: u32,
    pub host_id: u32,
    pub size: u32,
}

/// Which configuration it was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeclaredSource {
    /// An OCI runtime's config.json.
    #[default]
    Oci,
    /// LXC's configuration file.
    Lxc,
}

/// What a container was declared to be. Names and values of its environment are not kept, nor are its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Declared {
    pub source: DeclaredSource,
    /// By the names of /proc/PID/ns.
    pub namespaces: BTreeMap<String, NamespaceSource>,
    /// Namespace types that this version does not know, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unknown_namespaces: Vec<String>,
    /// Absent where the configuration does not say (LXC's may include files that are not read).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capabilities: Option<DeclaredCapabilities>,
    /// Absent: no filter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seccomp: Option<DeclaredSeccomp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub apparmor_profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selinux_label: Option<String>,
    pub no_new_privileges: bool,
    /// In the container's user namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gid: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub uid_map: Vec<DeclaredIdMap>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gid_map: Vec<DeclaredIdMap>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mounts: Vec<DeclaredMount>,
    /// Mounts beyond those that are kept.
    #[serde(default)]
    pub mounts_left_out: usize,
    pub limits: DeclaredLimits,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root_path: Option<String>,
    pub root_readonly: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hostname: Option<String>,
    /// Paths that are hidden from the container, such as /proc/kcore: none in a privileged one.
    pub masked_paths: usize,
    /// Paths that are made read-only, such as /proc/sys: none in a privileged one.
    pub readonly_paths: usize,
    /// The device cgroup lets everything through.
    pub all_devices: bool,
}
