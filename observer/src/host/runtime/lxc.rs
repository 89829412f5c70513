//! LXC: LIB/lxc/NAME/config (lxc.container.conf(5)), lines of `key = value`. Files that it includes are not read.

use std::path::{Path, PathBuf};

use super::{
    files::{Files, bounded},
    oci::{ALL_CAPABILITIES, capability_bit, host_namespaces},
};
use crate::{
    host::RuntimeFacts,
    model::{
        Declared, DeclaredCapabilities, DeclaredIdMap, DeclaredMount, DeclaredSeccomp, DeclaredSource,
        NamespaceSource,
    },
};

const MAX_LINES: usize = 4096;
const MAX_MOUNTS: usize = 256;
const MAX_ID_MAPS: usize = 340;

fn config(lib: &Path, name: &str) -> PathBuf {
    lib.join("lxc").join(name).join("config")
}

/// A container of this name is defined; LXC keeps no state of running ones on disk.
pub fn facts(lib: &Path, name: &str) -> Option<RuntimeFacts> {
    config(lib, name).is_file().then(|| RuntimeFacts {
        runtime: Some("lxc".into()),
        id: Some(name.to_owned()),
        name: Some(name.to_owned()),
        ..RuntimeFacts::default()
    })
}

pub fn declared(files: &mut Files, lib: &Path, name: &str) -> Option<Declared> {
    Some(parse(&files.text(&config(lib, name))?))
}

fn parse(text: &str) -> Declared {
    let mut declared = Declared { source: DeclaredSource::Lxc, ..Declared::default() };
    let mut includes = false;
    let mut keep: Option<u64> = None;
    let mut dropped = 0;
    let mut unknown = std::collections::BTreeSet::new();
    // lxc.namespace.clone, .keep and .share, with the names of /proc/PID/ns.
    let mut clone: Option<Vec<&str>> = None;
    let (mut kept, mut shared) = (Vec::<&str>::new(), Vec::<(&str, &str)>::new());
    let mut caps = |value: &str, mut mask: u64| {
        for name in value.split_whitespace() {
            match (name, capability_bit(name)) {
                ("none", _) => mask = 0,
                (_, Some(bit)) => mask |= bit,
                (_, None) => unknown.extend(bounded(name)),
            }
        }
        mask
    };
    let lines = text.lines().take(MAX_LINES).map(str::trim).filter(|line| !line.starts_with('#'));
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        let (key, value) = (key.trim(), value.trim());
        match key {
            "lxc.include" => includes = true,
            "lxc.uts.name" => declared.hostname = bounded(value),
            // A storage driver may stand before it.
            "lxc.rootfs.path" => declared.root_path = bounded(value.strip_prefix("dir:").unwrap_or(value)),
            "lxc.rootfs.options" => declared.root_readonly = value.split(',').any(|option| option == "ro"),
            "lxc.no_new_privs" => declared.no_new_privileges = value == "1",
            "lxc.init.uid" => declared.uid = value.parse().ok(),
            "lxc.init.gid" => declared.gid = value.parse().ok(),
            "lxc.apparmor.profile" => declared.apparmor_profile = bounded(value),
            "lxc.selinux.context" => declared.selinux_label = bounded(value),
            "lxc.seccomp.profile" => {
                declared.seccomp = bounded(value)
                    .map(|path| DeclaredSeccomp { profile_path: Some(path), ..DeclaredSeccomp::default() });
            }
            "lxc.cap.keep" => keep = Some(caps(value, keep.unwrap_or(0))),
            "lxc.cap.drop" => dropped = if value.is_empty() { 0 } else { caps(value, dropped) },
            "lxc.namespace.clone" => clone = Some(value.split_whitespace().collect()),
            "lxc.namespace.keep" => kept = value.split_whitespace().collect(),
            "lxc.mount.entry" => mount(&mut declared, value),
            "lxc.idmap" => id_map(&mut declared, value),
            "lxc.cgroup2.memory.max" | "lxc.cgroup.memory.limit_in_bytes" => {
                declared.limits.memory_bytes = size(value);
            }
            "lxc.cgroup2.pids.max" | "lxc.cgroup.pids.max" => declared.limits.pids = value.parse().ok(),
            "lxc.cgroup.cpu.shares" => declared.limits.cpu_shares = value.parse().ok(),
            "lxc.cgroup.cpu.cfs_quota_us" => declared.limits.cpu_quota_us = value.parse().ok(),
            "lxc.cgroup.cpu.cfs_period_us" => declared.limits.cpu_period_us = value.parse().ok(),
            "lxc.cgroup2.cpu.max" => {
                let mut parts = value.split_whitespace();
                declared.limits.cpu_quota_us = parts.next().and_then(|quota| quota.parse().ok());
                declared.limits.cpu_period_us = parts.next().and_then(|period| period.parse().ok());
            }
            "lxc.cgroup2.cpuset.cpus" | "lxc.cgroup.cpuset.cpus" => {
                declared.limits.cpuset_cpus = bounded(value);
            }
            _ => {
                if let Some(kind) = key.strip_prefix("lxc.namespace.share.") {
                    shared.push((kind, value));
                } else if key.starts_with("lxc.net.") && key.ends_with(".type") && value == "none" {
                    kept.push("net");
                }
            }
        }
    }
    let users = !declared.uid_map.is_empty() || !declared.gid_map.is_empty();
    declared.namespaces = host_namespaces();
    for (name, source) in &mut declared.namespaces {
        let name = name.as_str();
        let own = match &clone {
            Some(clone) => clone.contains(&name),
            // All that the kernel has, of users only with a mapping, and none of time (lxc: start.c, lxc_init_handler).
            None => name != "time" && (name != "user" || users),
        };
        if let Some((_, target)) = shared.iter().find(|(kind, _)| *kind == name) {
            *source = NamespaceSource::Joined { target: bounded(target).unwrap_or_default() };
        } else if own && !kept.contains(&name) {
            *source = NamespaceSource::Own;
        }
    }
    // What an included file drops is not known here.
    if !includes || keep.is_some() {
        let mask = keep.unwrap_or(ALL_CAPABILITIES & !dropped);
        declared.capabilities = Some(DeclaredCapabilities {
            bounding: mask,
            effective: mask,
            permitted: mask,
            inheritable: 0,
            ambient: 0,
            unknown: unknown.into_iter().take(64).collect(),
        });
    }
    declared
}

/// fstab(5): source, destination (relative to the container's root), type, options.
fn mount(declared: &mut Declared, line: &str) {
    let mut fields = line.split_whitespace();
    let (source, destination) = (fields.next().and_then(bounded), fields.next().and_then(bounded));
    let (fs_type, options) = (fields.next(), fields.next().unwrap_or(""));
    let Some(destination) = destination else { return };
    if declared.mounts.len() == MAX_MOUNTS {
        declared.mounts_left_out += 1;
        return;
    }
    let options: Vec<String> = options.split(',').filter_map(bounded).take(32).collect();
    let bind = options.iter().any(|option| option == "bind" || option == "rbind");
    declared.mounts.push(DeclaredMount {
        destination: format!("/{}", destination.trim_start_matches('/')),
        source,
        fs_type: if bind { Some("bind".into()) } else { fs_type.and_then(bounded) },
        options,
    });
}

/// `u|g CONTAINER HOST SIZE`, or `b` for both.
fn id_map(declared: &mut Declared, value: &str) {
    let fields: Vec<&str> = value.split_whitespace().collect();
    let [kind, container, host, size] = fields.as_slice() else { return };
    let (Ok(container_id), Ok(host_id), Ok(size)) = (container.parse(), host.parse(), size.parse()) else {
        return;
    };
    let range = DeclaredIdMap { container_id, host_id, size };
    for (kinds, map) in [(["u", "b"], &mut declared.uid_map), (["g", "b"], &mut declared.gid_map)] {
        if kinds.contains(kind) && map.len() < MAX_ID_MAPS {
            map.push(range);
        }
    }
}

/// Bytes, with the suffixes that the kernel takes (memparse); `max` and -1 are no limit.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len() - 1)?, 10),
        b'M' => (text.get(..text.len() - 1)?, 20),
        b'G' => (text.get(..text.len() - 1)?, 30),
        b'T' => (text.get(..text.len() - 1)?, 40),
        _ => (text, 0),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}
