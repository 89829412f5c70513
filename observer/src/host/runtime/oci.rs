//! An OCI runtime's config.json (runtime-spec: config.md, config-linux.md), read leniently: each part by itself, so
//! that one that is not as expected does not hide the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    files::{Files, bounded, text_at},
    seccomp::DeclaredCalls,
};
use crate::model::{
    CapSet, Capability, Declared, DeclaredCapabilities, DeclaredIdMap, DeclaredLimits, DeclaredMount,
    DeclaredSeccomp, DeclaredSource, NamespaceSource,
};

/// Kept of each list; a real container has some thirty mounts.
const MAX_MOUNTS: usize = 256;
const MAX_OPTIONS: usize = 32;
const MAX_ID_MAPS: usize = 340;
const MAX_UNKNOWN: usize = 64;

/// All capabilities that have a name here.
pub const ALL_CAPABILITIES: u64 = CapSet::ALL.0;

/// The bit of a capability, by its name with or without `CAP_`, in any case.
pub fn capability_bit(name: &str) -> Option<u64> {
    Capability::by_name(name).map(|capability| capability.set().0)
}

/// runtime-spec's namespace types by their names in /proc/PID/ns.
const NAMESPACES: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

/// All namespaces as the host's, by their names in /proc/PID/ns.
pub fn host_namespaces() -> BTreeMap<String, NamespaceSource> {
    NAMESPACES.iter().map(|(_, name)| ((*name).to_owned(), NamespaceSource::Host)).collect()
}

/// The annotations alone: parsing the rest of a large configuration would take the pipeline's time.
pub fn annotations(files: &mut Files, config: &Path) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: Value,
    }
    let Some(Annotated { annotations: Value::Object(map) }) = files.json(config) else {
        return BTreeMap::new();
    };
    map.into_iter().filter_map(|(name, value)| Some((name, bounded(value.as_str()?)?))).collect()
}

/// What the filter lets pass and what it refuses. Of one that is not understood, nothing is said.
pub fn declared_calls(files: &mut Files, config: &Path) -> Option<DeclaredCalls> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        linux: Linux,
    }
    #[derive(Default, Deserialize)]
    struct Linux {
        #[serde(default)]
        seccomp: Option<super::seccomp::Filter>,
    }
    let config: Config = files.json(config)?;
    Some(DeclaredCalls::of(config.linux.seccomp.as_ref()))
}

/// The whole declaration.
pub fn declared(files: &mut Files, config: &Path) -> Option<Declared> {
    let config: Value = files.json(config)?;
    let (namespaces, unknown_namespaces) = namespaces(&config);
    let (mounts, mounts_left_out) = mounts(&config);
    let count = |pointer: &str| config.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let flag = |pointer: &str| config.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    Some(Declared {
        source: DeclaredSource::Oci,
        namespaces,
        unknown_namespaces,
        capabilities: capabilities(&config),
        seccomp: seccomp(&config),
        apparmor_profile: text_at(&config, "/process/apparmorProfile"),
        selinux_label: text_at(&config, "/process/selinuxLabel"),
        no_new_privileges: flag("/process/noNewPrivileges"),
        uid: id_at(&config, "/process/user/uid"),
        gid: id_at(&config, "/process/user/gid"),
        uid_map: id_map(&config, "/linux/uidMappings"),
        gid_map: id_map(&config, "/linux/gidMappings"),
        mounts,
        mounts_left_out,
        limits: limits(&config),
        root_path: text_at(&config, "/root/path"),
        root_readonly: flag("/root/readonly"),
        hostname: text_at(&config, "/hostname"),
        masked_paths: count("/linux/maskedPaths"),
        readonly_paths: count("/linux/readonlyPaths"),
        all_devices: all_devices(&config),
    })
}

fn list<'a>(config: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    config.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn texts(value: &Value, pointer: &str, most: usize) -> Vec<String> {
    list(value, pointer).filter_map(|text| bounded(text.as_str()?)).take(most).collect()
}

fn id_at(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer)?.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn namespaces(config: &Value) -> (BTreeMap<String, NamespaceSource>, Vec<String>) {
    let mut found = host_namespaces();
    let mut unknown = BTreeSet::new();
    for entry in list(config, "/linux/namespaces") {
        let Some(kind) = text_at(entry, "/type") else { continue };
        let Some((_, name)) = NAMESPACES.iter().find(|(oci, _)| *oci == kind) else {
            if unknown.len() < MAX_UNKNOWN {
                unknown.insert(kind);
            }
            continue;
        };
        let source = match text_at(entry, "/path") {
            Some(target) => NamespaceSource::Joined { target },
            None => NamespaceSource::Own,
        };
        found.insert((*name).to_owned(), source);
    }
    (found, unknown.into_iter().collect())
}

fn capabilities(config: &Value) -> Option<DeclaredCapabilities> {
    let declared = config.pointer("/process/capabilities").filter(|value| value.is_object())?;
    let mut unknown = BTreeSet::new();
    let mut set = |pointer: &str| {
        list(declared, pointer).filter_map(Value::as_str).fold(0, |mask, name| {
            mask | capability_bit(name).unwrap_or_else(|| {
                if unknown.len() < MAX_UNKNOWN {
                    unknown.extend(bounded(name));
                }
                0
            })
        })
    };
    let mut found = DeclaredCapabilities {
        bounding: set("/bounding"),
        effective: set("/effective"),
        inheritable: set("/inheritable"),
        permitted: set("/permitted"),
        ambient: set("/ambient"),
        unknown: Vec::new(),
    };
    found.unknown = unknown.into_iter().collect();
    Some(found)
}

fn seccomp(config: &Value) -> Option<DeclaredSeccomp> {
    let filter = config.pointer("/linux/seccomp").filter(|value| value.is_object())?;
    let is_notify = |rule: &Value| rule.get("action").and_then(Value::as_str) == Some("SCMP_ACT_NOTIFY");
    Some(DeclaredSeccomp {
        default_action: text_at(filter, "/defaultAction"),
        rules: list(filter, "/syscalls").count(),
        syscalls: list(filter, "/syscalls").map(|rule| list(rule, "/names").count()).sum(),
        notifies: list(filter, "/syscalls").any(is_notify),
        profile_path: None,
    })
}

fn id_map(config: &Value, pointer: &str) -> Vec<DeclaredIdMap> {
    list(config, pointer)
        .filter_map(|range| {
            Some(DeclaredIdMap {
                container_id: id_at(range, "/containerID")?,
                host_id: id_at(range, "/hostID")?,
                size: id_at(range, "/size")?,
            })
        })
        .take(MAX_ID_MAPS)
        .collect()
}

fn mounts(config: &Value) -> (Vec<DeclaredMount>, usize) {
    let all = list(config, "/mounts").count();
    let kept: Vec<DeclaredMount> = list(config, "/mounts")
        .filter_map(|mount| {
            let options = texts(mount, "/options", MAX_OPTIONS);
            // Both runc and docker leave the type out, or write `none`, where the options say bind.
            let bind = options.iter().any(|option| option == "bind" || option == "rbind");
            let fs_type = text_at(mount, "/type").filter(|kind| !bind || kind != "none");
            Some(DeclaredMount {
                destination: text_at(mount, "/destination")?,
                source: text_at(mount, "/source"),
                fs_type: fs_type.or_else(|| bind.then(|| "bind".to_owned())),
                options,
            })
        })
        .take(MAX_MOUNTS)
        .collect();
    let left_out = all.saturating_sub(kept.len());
    (kept, left_out)
}

fn limits(config: &Value) -> DeclaredLimits {
    // 0 and negative numbers mean "no limit" in all of these.
    let number = |pointer: &str| {
        config.pointer("/linux/resources")?.pointer(pointer)?.as_u64().filter(|limit| *limit != 0)
    };
    DeclaredLimits {
        memory_bytes: number("/memory/limit"),
        memory_and_swap_bytes: number("/memory/swap"),
        cpu_quota_us: number("/cpu/quota"),
        cpu_period_us: number("/cpu/period"),
        cpu_shares: number("/cpu/shares"),
        cpuset_cpus: text_at(config, "/linux/resources/cpu/cpus"),
        pids: number("/pids/limit"),
    }
}

/// True if the device cgroup's rules begin and end with "all": docker's and the CRI's way to write privileged.
fn all_devices(config: &Value) -> bool {
    let is_all = |rule: &Value| {
        let text = |key: &str| rule.get(key).and_then(Value::as_str);
        let any =
            |key: &str| rule.get(key).is_none_or(|number| number.is_null() || number.as_i64() == Some(-1));
        matches!(text("type"), None | Some("" | "a"))
            && any("major")
            && any("minor")
            && matches!(text("access"), None | Some("" | "rwm"))
    };
    // The last rule about everything decides.
    let last = list(config, "/linux/resources/devices").filter(|rule| is_all(rule)).last();
    last.and_then(|rule| rule.get("allow")).and_then(Value::as_bool).unwrap_or(false)
}
