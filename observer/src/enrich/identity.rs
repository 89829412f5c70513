//! Whose is a cgroup, by its path.
//!
//! Only paths that a process outside containers made are asked about here: a cgroup made below a container's
//! carries that container's slot from the kernel side, whatever it calls itself. Why it is decided this way:
//! docs/adr/0001-identity.md.

#[cfg(test)]
mod tests;

use crate::model::Runtime;

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A container, with the id that the path names.
    Container { id: String, runtime: Runtime },
    /// A service, a slice, a session, a runtime's helper: the host's.
    Host,
    /// Nothing that a path can tell. What runs there decides: see `World::looks_contained`.
    Unknown { leaf: String },
}

/// Reads a cgroup path from the root down; the first component that names a container, or a part of the tree that is
/// not for containers, decides: what is below it may be called as its owner likes.
pub fn identify(path: &str) -> Identity {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((leaf, _)) = parts.split_last() else { return Identity::Host };
    for (at, part) in parts.iter().enumerate() {
        let above = parts.get(..at).unwrap_or_default();
        if let Some(identity) = component(part, above) {
            return identity;
        }
    }
    if is_hosts(&parts) { Identity::Host } else { Identity::Unknown { leaf: (*leaf).to_owned() } }
}

/// The ids of all runtimes that give their containers random ones.
fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// buildkit's ids (identity/randomid.go): 25 digits to base 36.
fn is_buildkit_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// The task of an ECS task on Fargate: TASK-NUMBER.
fn is_fargate_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && task.bytes().all(|b| b.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The names that the runtimes prefix to a container's id, for the systemd driver SLICE:PREFIX:ID, which systemd makes
/// PREFIX-ID.scope of (runc: libcontainer/cgroups/systemd/common.go, getUnitName).
const PREFIXES: &[(&str, Runtime)] = &[
    ("docker", Runtime::Docker),
    ("cri-containerd", Runtime::Containerd),
    ("nerdctl", Runtime::Containerd),
    ("crio", Runtime::CriO),
    ("libpod-payload", Runtime::Podman),
    ("libpod", Runtime::Podman),
    ("buildkit", Runtime::Buildkit),
    ("runc", Runtime::Runc),
    ("crun", Runtime::Crun),
];

fn named(id: &str, runtime: Runtime) -> Option<Identity> {
    (!id.is_empty()).then(|| Identity::Container { id: id.to_owned(), runtime })
}

/// PREFIX and id of a container, of whatever form the runtime gives its ids.
fn prefixed(prefix: &str, id: &str) -> Option<Identity> {
    let known = PREFIXES.iter().find(|(known, _)| *known == prefix).map(|(_, runtime)| *runtime);
    match known {
        Some(runtime) if is_hex_id(id) => named(id, runtime),
        Some(Runtime::Buildkit) if is_buildkit_id(id) => named(id, Runtime::Buildkit),
        // runc and crun name a container as they are told to.
        Some(runtime @ (Runtime::Runc | Runtime::Crun)) => named(id, runtime),
        // Who gives an id of this form makes containers, whoever it is.
        None if is_hex_id(id) && !prefix.is_empty() => named(id, Runtime::Unknown),
        _ => None,
    }
}

/// What one component says, with those above it; `None` if it leaves the matter open.
fn component(part: &str, above: &[&str]) -> Option<Identity> {
    let parent = above.last().copied();
    // The monitors of podman, CRI-O and LXC stand beside the containers that they look after.
    let monitor = part.starts_with("libpod-conmon-")
        || part.starts_with("crio-conmon-")
        || part == "conmon" && above.contains(&"libpod_parent")
        || part.starts_with("lxc.monitor")
        || part == "lxc.pivot";
    if monitor {
        return Some(Identity::Host);
    }
    if let Some(name) = part.strip_suffix(".scope") {
        return scope(name, above);
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return named(&unescape(name), Runtime::SystemdNspawn);
    }
    // LXC: src/lxc/cgroups/cgfsng.c; `lxc/NAME` is that of Proxmox and of LXC before 3.1, `lxc.payload/NAME` that of 3.1.
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(name, Runtime::Lxc);
    }
    if matches!(parent, Some("lxc" | "lxc.payload")) {
        return named(part, Runtime::Lxc);
    }
    // The systemd driver's own notation, where a runtime took it for a path.
    let mut notation = part.splitn(3, ':');
    if let (Some(slice), Some(prefix), Some(id)) = (notation.next(), notation.next(), notation.next()) {
        return slice.ends_with(".slice").then(|| prefixed(prefix, id)).flatten();
    }
    if is_hex_id(part) {
        // The cgroupfs driver: what is above says who.
        return match parent {
            // A pod of podman's (libpod/runtime_pod_linux.go): its containers are below it.
            Some("libpod_parent") => None,
            Some("docker") => named(part, Runtime::Docker),
            _ if above.first() == Some(&"ecs") => named(part, Runtime::Docker),
            // The runtime's state knows better, where docker is behind Kubernetes.
            _ if in_kubepods(above) => named(part, Runtime::Containerd),
            _ => named(part, Runtime::Unknown),
        };
    }
    if parent == Some("buildkit") && is_buildkit_id(part) {
        return named(part, Runtime::Buildkit);
    }
    if above.first() == Some(&"ecs") && is_fargate_id(part) {
        return named(part, Runtime::Containerd);
    }
    // PREFIX-ID by the cgroupfs driver: podman and CRI-O.
    part.rsplit_once('-').filter(|(_, id)| is_hex_id(id)).and_then(|(prefix, id)| prefixed(prefix, id))
}

/// A scope of systemd's, its name without the suffix.
fn scope(name: &str, above: &[&str]) -> Option<Identity> {
    // machined's, for machines of all kinds.
    if let Some(machine) = name.strip_prefix("machine-") {
        let machine = unescape(machine);
        // libvirt (src/util/virsystemd.c): DRIVER-NUMBER-NAME. A virtual machine's threads are the host's.
        if machine.starts_with("qemu-") {
            return Some(Identity::Host);
        }
        return match machine.strip_prefix("lxc-") {
            Some(rest) => {
                let numbered = rest.split_once('-').filter(|(n, _)| n.bytes().all(|b| b.is_ascii_digit()));
                named(numbered.map_or(rest, |(_, name)| name), Runtime::Lxc)
            }
            None => named(&machine, Runtime::SystemdNspawn),
        };
    }
    // Names that hold '-' themselves: the prefix that leaves a valid id is the one.
    let by_prefix = PREFIXES
        .iter()
        .find_map(|(prefix, _)| prefixed(prefix, name.strip_prefix(prefix)?.strip_prefix('-')?));
    by_prefix
        .or_else(|| name.rsplit_once('-').and_then(|(prefix, id)| prefixed(prefix, id)))
        // Nomad's exec driver isolates, its raw_exec does not (client/lib/cgroupslib/editor.go: ALLOCATION.TASK.scope).
        .or_else(|| {
            let nomad = above.first() == Some(&"nomad.slice");
            nomad.then(|| Identity::Unknown { leaf: format!("{name}.scope") })
        })
}

/// systemd's escaping of unit names (systemd.unit(5)): `\x2d` for `-`.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .strip_prefix(b"x")
            .filter(|_| *first == b'\\')
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn in_kubepods(above: &[&str]) -> bool {
    above
        .iter()
        .any(|part| *part == "kubepods" || part.starts_with("kubepods.") || part.contains("kubepods-"))
}

fn is_unit(part: &str) -> bool {
    [".service", ".slice", ".scope", ".mount", ".socket", ".swap"].iter().any(|suffix| part.ends_with(suffix))
}

/// systemd's units, where systemd makes them (a unit is in a unit, the topmost of them are slices), and what runtimes
/// make to hold their containers. A container that somebody calls `web.service` is elsewhere.
fn is_hosts(parts: &[&str]) -> bool {
    match parts {
        [first] => {
            first.ends_with(".slice")
                || [
                    "init.scope",
                    "docker",
                    "lxc",
                    "lxc.payload",
                    "libpod_parent",
                    "kubepods",
                    "ecs",
                    "buildkit",
                ]
                .contains(first)
        }
        ["docker", "buildkit"] | ["ecs", _] => true,
        [above @ .., leaf] if in_kubepods(above) => {
            ["besteffort", "burstable"].contains(leaf) || leaf.starts_with("pod") || is_unit(leaf)
        }
        // A pod of podman's.
        ["libpod_parent", pod] => is_hex_id(pod),
        [first, ..] => first.ends_with(".slice") && parts.iter().all(|part| is_unit(part)),
        [] => true,
    }
}
