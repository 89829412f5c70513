//! Whose is a cgroup, by its path.
//!
//! Only paths that a process outside containers made are asked about here: a cgroup made below a container's
//! carries that container's slot from the kernel side, whatever it calls itself.

use crate::model::Runtime;

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A container, with the id that the path names.
    Container { id: String, runtime: Runtime },
    /// A service, a slice, a session, a runtime's helper: the host's.
    Host,
    /// Nothing that a path can tell. What runs there decides: see `is_own_world`.
    Unknown { leaf: String },
}

/// Reads a cgroup path from the root down; the first component that names a container decides.
pub fn identify(path: &str) -> Identity {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for (at, part) in parts.iter().enumerate() {
        let above = at.checked_sub(1).map(|i| parts[i]);
        if let Some((id, runtime)) = container(part, above, &parts[..at]) {
            return Identity::Container { id, runtime };
        }
    }
    match parts.last() {
        None => Identity::Host,
        Some(leaf) if is_hosts(leaf) => Identity::Host,
        Some(leaf) => Identity::Unknown { leaf: (*leaf).to_owned() },
    }
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// systemd's scopes of the CRI and docker drivers: PREFIX-ID.scope.
const SCOPES: &[(&str, Runtime)] = &[
    ("docker-", Runtime::Docker),
    ("cri-containerd-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    ("libpod-", Runtime::Podman),
    ("libpod-payload-", Runtime::Podman),
    ("nerdctl-", Runtime::Containerd),
    ("runc-", Runtime::Runc),
    ("crun-", Runtime::Crun),
];

fn container(part: &str, above: Option<&str>, all_above: &[&str]) -> Option<(String, Runtime)> {
    if let Some(name) = part.strip_suffix(".scope") {
        for (prefix, runtime) in SCOPES {
            if let Some(id) = name.strip_prefix(prefix).filter(|id| is_hex_id(id)) {
                return Some((id.to_owned(), *runtime));
            }
        }
        // runc and crun name a container as they are told to.
        for (prefix, runtime) in [("runc-", Runtime::Runc), ("crun-", Runtime::Crun)] {
            if let Some(id) = name.strip_prefix(prefix).filter(|id| !id.is_empty()) {
                return Some((id.to_owned(), runtime));
            }
        }
        // machined's scopes escape '-' as \x2d.
        if let Some(machine) = name.strip_prefix("machine-") {
            let machine = machine.replace("\\x2d", "-");
            return match machine.strip_prefix("lxc-") {
                Some(lxc) => Some((lxc.to_owned(), Runtime::Lxc)),
                None => Some((machine, Runtime::SystemdNspawn)),
            };
        }
        return None;
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return Some((name.replace("\\x2d", "-"), Runtime::SystemdNspawn));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((name.to_owned(), Runtime::Lxc));
    }
    if above == Some("lxc") {
        return Some((part.to_owned(), Runtime::Lxc));
    }
    if let Some(id) = part.strip_prefix("crio-").filter(|id| is_hex_id(id)) {
        return Some((id.to_owned(), Runtime::CriO));
    }
    let podman = part.strip_prefix("libpod-payload-").or_else(|| part.strip_prefix("libpod-"));
    if let Some(id) = podman.filter(|id| is_hex_id(id)) {
        return Some((id.to_owned(), Runtime::Podman));
    }
    // The systemd driver's own notation, where a runtime took it for a path: SLICE:PREFIX:ID.
    if let Some((_, id)) = part.rsplit_once(':').filter(|(_, id)| is_hex_id(id)) {
        let runtime = if part.contains("cri-containerd") { Runtime::Containerd } else { Runtime::Unknown };
        return Some((id.to_owned(), runtime));
    }
    if is_hex_id(part) {
        // The cgroupfs driver: the parent says who.
        let runtime = match above {
            Some("docker") => Runtime::Docker,
            Some("libpod_parent") => Runtime::Podman,
            _ if all_above.iter().any(|p| p.starts_with("kubepods")) => Runtime::Containerd,
            _ => Runtime::Unknown,
        };
        return Some((part.to_owned(), runtime));
    }
    None
}

/// systemd's units and the runtimes' own helpers.
fn is_hosts(leaf: &str) -> bool {
    [".service", ".slice", ".scope", ".mount", ".socket", ".swap"].iter().any(|suffix| leaf.ends_with(suffix))
        || leaf.starts_with("lxc.monitor.")
        || leaf.starts_with("libpod-conmon-")
        || leaf.starts_with("crio-conmon-")
        || ["docker", "lxc", "libpod_parent", "kubepods", "besteffort", "burstable"].contains(&leaf)
        || leaf.starts_with("pod") && leaf.len() > 30
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_containers_from_the_host() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let container = |path: &str, id: &str, runtime| {
            let expected = Identity::Container { id: id.to_owned(), runtime };
            assert_eq!(identify(path), expected, "{path}");
        };
        container(&format!("/docker/{id}"), id, Runtime::Docker);
        container(&format!("/system.slice/docker-{id}.scope"), id, Runtime::Docker);
        container(&format!("/system.slice/docker-{id}.scope/init"), id, Runtime::Docker);
        container(
            &format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podX.slice/cri-containerd-{id}.scope"
            ),
            id,
            Runtime::Containerd,
        );
        container(&format!("/kubepods/burstable/pod1234/{id}"), id, Runtime::Containerd);
        container(&format!("/kubepods.slice/crio-{id}.scope"), id, Runtime::CriO);
        container(&format!("/machine.slice/libpod-{id}.scope/container"), id, Runtime::Podman);
        container("/lxc/web", "web", Runtime::Lxc);
        container("/lxc.payload.web", "web", Runtime::Lxc);
        container("/machine.slice/machine-my\\x2dbox.scope", "my-box", Runtime::SystemdNspawn);
        container("/machine.slice/systemd-nspawn@box.service/payload", "box", Runtime::SystemdNspawn);
        container("/system.slice/runc-web.scope", "web", Runtime::Runc);
        container(&format!("/user.slice/nerdctl-{id}.scope"), id, Runtime::Containerd);
        container(&format!("/a.service/libpod-payload-{id}"), id, Runtime::Podman);
        container(&format!("/system.slice:cri-containerd:{id}"), id, Runtime::Containerd);
        // Docker in docker: the outer container.
        container(&format!("/docker/{id}/docker/{}", id.replace('0', "f")), id, Runtime::Docker);
        for host in [
            "/",
            "/system.slice",
            "/system.slice/cron.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/init.scope",
            "/docker",
            "/kubepods/burstable",
            "/machine.slice/libpod-conmon-0123.scope",
            "/lxc.monitor.web",
        ] {
            assert_eq!(identify(host), Identity::Host, "{host}");
        }
        for unknown in ["/web", "/default/web", "/a.service/web", &format!("/docker/{}", &id[1..])] {
            assert!(matches!(identify(unknown), Identity::Unknown { .. }), "{unknown}");
        }
    }
}
