//! Holds what was read against the rules of posture.

use super::{ContainerView, Look, Mount, Namespace, sharing};
use crate::{
    model::{CapSet, Capability, NsType, Observed, resources::Resources},
    posture::{
        self, CapabilitySets, Checks, HostMount, Limit, ProcessLabel, ProcessSeccomp, Subject, Verdict,
    },
};

/// A verdict for each container, in the order of the look; `observed` is what an agent has seen them do.
pub fn judge(look: &Look, observed: Option<&Observed>) -> Vec<Verdict> {
    let host = posture_host(look);
    let sharing = sharing(look);
    look.containers
        .iter()
        .map(|container| posture::judge(&subject(look, container, &sharing, observed), &host))
        .collect()
}

/// What is to be said of the host.
pub fn judge_host(look: &Look) -> Verdict {
    posture::judge_host(&posture_host(look))
}

fn posture_host(look: &Look) -> posture::Host {
    posture::Host {
        apparmor: Some(look.host.apparmor),
        selinux: Some(look.host.selinux),
        capabilities: look.host.capabilities,
    }
}

fn subject(
    look: &Look,
    container: &ContainerView,
    sharing: &[Namespace],
    observed: Option<&Observed>,
) -> Subject {
    let security = container.security.as_ref();
    let resources = container.resources.as_ref();
    let declared = container.details.as_ref().and_then(|details| details.declared.as_ref());
    Subject {
        declared_privileged: declared
            .map(|it| it.all_devices && it.masked_paths == 0 && it.readonly_paths == 0),
        all_devices: declared.map(|it| it.all_devices),
        namespaces: namespaces(look, container, sharing),
        seccomp: seccomp(look, container),
        capabilities: security.and_then(|it| it.capabilities).map(|it| CapabilitySets {
            effective: it.effective,
            permitted: it.permitted,
            inheritable: it.inheritable,
            bounding: it.bounding,
            ambient: it.ambient,
        }),
        checks: checks(&container.id, observed),
        no_new_privs: security.and_then(|it| it.no_new_privs),
        uid: security.and_then(|it| it.uids).map(|uids| uids[1]),
        apparmor: security.and_then(|it| it.apparmor.clone()),
        process_labels: process_labels(look, container),
        declared_apparmor: declared.and_then(|it| it.apparmor_profile.clone()),
        mounts: container.mounts.as_ref().map(|mounts| {
            let mut found = host_mounts(mounts, &look.host.mounts);
            found.retain(|mount| !is_runtimes_file(mount));
            found
        }),
        memory_limit_bytes: memory_limit(resources),
        pids_limit: pids_limit(resources),
    }
}

fn checks(id: &str, observed: Option<&Observed>) -> Checks {
    let Some(observed) = observed.filter(|observed| observed.capabilities) else { return Checks::Uncounted };
    let Some(container) = observed.containers.iter().find(|container| container.id == id) else {
        return Checks::Unknown;
    };
    let granted = container.capabilities.iter().filter(|checked| checked.granted > 0);
    let named = granted.filter_map(|checked| Capability::by_name(&checked.capability));
    Checks::Counted {
        seconds: container.capabilities_seconds,
        used: named.fold(CapSet::EMPTY, |set, capability| set | capability.set()),
    }
}

fn namespaces(
    look: &Look,
    container: &ContainerView,
    sharing: &[Namespace],
) -> std::collections::BTreeMap<NsType, posture::Namespace> {
    let whose = |ns: NsType| {
        let inode = container.namespaces.get(ns.name()).copied()?;
        if look.host.namespaces.get(ns.name()) == Some(&inode) {
            return Some(posture::Namespace::Host);
        }
        let known = sharing.iter().find(|it| it.inode == inode && it.r#type == ns.name());
        let others: Vec<String> = known
            .into_iter()
            .flat_map(|it| &it.members)
            .filter(|share| share.container != container.id)
            .map(|share| look.called(&share.container).to_owned())
            .collect();
        Some(if others.is_empty() { posture::Namespace::Own } else { posture::Namespace::Shared(others) })
    };
    NsType::all().filter(|ns| ns.kind() == *ns).filter_map(|ns| Some((ns, whose(ns)?))).collect()
}

/// All its processes where they were read, else the first.
fn seccomp(look: &Look, container: &ContainerView) -> Option<Vec<ProcessSeccomp>> {
    let every: Vec<ProcessSeccomp> = look
        .members(&container.id)
        .filter_map(|process| {
            let security = process.security.as_ref()?;
            Some(ProcessSeccomp { pid: process.pid, comm: process.comm.clone(), mode: security.seccomp_mode })
        })
        .collect();
    if !every.is_empty() {
        return Some(every);
    }
    let (security, pid) = (container.security.as_ref()?, container.pid?);
    let comm = look.processes.iter().find(|process| process.pid == pid).map(|process| process.comm.clone());
    Some(vec![ProcessSeccomp { pid, comm: comm.unwrap_or_default(), mode: security.seccomp_mode }])
}

fn process_labels(look: &Look, container: &ContainerView) -> Vec<ProcessLabel> {
    look.members(&container.id)
        .filter(|process| Some(process.pid) != container.pid)
        .filter_map(|process| {
            let label = process.security.as_ref()?.apparmor.clone()?;
            Some(ProcessLabel { pid: process.pid, comm: process.comm.clone(), label })
        })
        .collect()
}

fn memory_limit(resources: Option<&Resources>) -> Option<Limit> {
    let memory = resources?.memory.as_ref()?;
    let limit = memory.effective_limit.as_ref().map(|limit| limit.bytes).or(memory.limit_bytes);
    Some(limit.map_or(Limit::None, Limit::AtMost))
}

fn pids_limit(resources: Option<&Resources>) -> Option<Limit> {
    let pids = resources?.pids.as_ref()?;
    let limit = pids.effective_max.as_ref().map(|limit| limit.max).or(pids.max);
    Some(limit.map_or(Limit::None, Limit::AtMost))
}

/// What of the host's own tree is mounted in a container. The mount table names a part of a file system (`root`) on a
/// device; where the host has the same file system mounted tells the host's path to it.
pub fn host_mounts(mounts: &[Mount], host: &[Mount]) -> Vec<HostMount> {
    let found = mounts.iter().filter(|mount| mount.point != "/" && !is_own(mount)).filter_map(|mount| {
        Some(HostMount {
            source: host_path(mount, host)?,
            destination: mount.point.clone(),
            writable: mount.writable,
        })
    });
    let mut shown: Vec<HostMount> = Vec::new();
    for mount in found {
        // What the host has mounted below came along with the mount above (`-v /:/host` brings /host/proc): nothing new,
        // unless it may be written to and the one above may not.
        let implied = shown.iter().any(|above| {
            above.writable >= mount.writable
                && below(&mount.destination, &above.destination)
                    .is_some_and(|rest| below(&mount.source, &above.source) == Some(rest))
        });
        if !implied {
            shown.push(mount);
        }
    }
    shown
}

/// What follows `above` in a path that is below it.
fn below<'a>(path: &'a str, above: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(above.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// docker's own three, wherever its data is: .../containers/ID/hosts.
fn is_runtimes_file(mount: &HostMount) -> bool {
    let mut parts = mount.source.rsplit('/');
    let (file, id, containers) = (parts.next(), parts.next(), parts.next());
    file.is_some_and(|file| ["hosts", "hostname", "resolv.conf"].contains(&file))
        && id.is_some_and(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        && containers == Some("containers")
        && ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&mount.destination.as_str())
}

/// A view of the kernel that a runtime mounts afresh in every container, at its usual place.
fn is_own(mount: &Mount) -> bool {
    let usual = ["/proc", "/sys", "/dev"].iter().any(|place| {
        mount.point.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    usual && ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"].contains(&mount.filesystem.as_str())
}

fn host_path(mount: &Mount, host: &[Mount]) -> Option<String> {
    // The nearest: a bind mount of a directory rather than the whole file system elsewhere.
    host.iter()
        .filter(|known| known.device == mount.device)
        .filter_map(|known| Some((known, below(&mount.root, &known.root)?.trim_end_matches('/'))))
        .min_by_key(|(known, below)| (below.len(), known.point.len()))
        .map(|(known, below)| {
            let path = format!("{}{below}", known.point.trim_end_matches('/'));
            if path.is_empty() { "/".to_owned() } else { path }
        })
}

impl Look {
    /// What a person calls a container of this id.
    pub fn called<'a>(&'a self, id: &'a str) -> &'a str {
        let container = self.container(id);
        container.and_then(|it| it.name.as_deref()).filter(|name| !name.is_empty()).unwrap_or(id)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use crate::model::{CheckedCapability, ObservedContainer};

    fn mount(root: &str, point: &str, filesystem: &str, device: &str) -> Mount {
        Mount {
            device: device.to_owned(),
            root: root.to_owned(),
            point: point.to_owned(),
            writable: true,
            options: "rw".to_owned(),
            filesystem: filesystem.to_owned(),
            source: "x".to_owned(),
            super_options: "rw".to_owned(),
        }
    }

    #[test]
    fn the_hosts_path_of_a_mount_is_found_by_device_and_root() {
        let host = [
            mount("/", "/", "ext4", "8:1"),
            mount("/", "/run", "tmpfs", "0:20"),
            mount("/data/v", "/mnt/v", "ext4", "8:1"),
        ];
        let inside = [
            mount("/", "/", "overlay", "0:50"),
            mount("/", "/host", "ext4", "8:1"),
            mount("/", "/host/run", "tmpfs", "0:20"),
            mount("/docker.sock", "/var/run/docker.sock", "tmpfs", "0:20"),
            mount("/data/v/x", "/x", "ext4", "8:1"),
            mount("/database", "/y", "ext4", "8:1"),
            mount("/", "/proc", "proc", "0:60"),
            mount("/", "/sys/fs/cgroup", "cgroup2", "0:30"),
            mount("/", "/tmp", "tmpfs", "0:61"),
        ];
        let found: Vec<_> =
            host_mounts(&inside, &host).into_iter().map(|it| (it.source, it.destination)).collect();
        let expected = [
            ("/", "/host"),
            ("/run/docker.sock", "/var/run/docker.sock"),
            ("/mnt/v/x", "/x"),
            ("/database", "/y"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn whose_namespaces_and_which_limits_are_handed_on() {
        let mut look = testing::look();
        look.containers[1].resources = Some(Resources::default());
        let sharing = sharing(&look);
        let web = subject(&look, &look.containers[1], &sharing, None);
        assert_eq!(web.namespaces[&NsType::NET], posture::Namespace::Shared(vec!["db".to_owned()]));
        assert_eq!(web.namespaces[&NsType::MNT], posture::Namespace::Own);
        // No controller was there to be read: not known.
        assert_eq!((web.memory_limit_bytes, web.mounts), (None, None));
        assert_eq!(judge(&look, None).len(), 2);
    }

    #[test]
    fn what_was_counted_is_handed_on() {
        let checked = |name: &str, granted, denied| CheckedCapability {
            capability: name.into(),
            granted,
            denied,
            ..CheckedCapability::default()
        };
        let web = ObservedContainer {
            id: "web".into(),
            capabilities_seconds: 60,
            capabilities: vec![checked("CAP_CHOWN", 1, 0), checked("CAP_KILL", 0, 1), checked("63", 1, 0)],
            ..ObservedContainer::default()
        };
        let observed = Observed { capabilities: true, containers: vec![web], ..Observed::default() };
        assert_eq!(checks("web", Some(&observed)), Checks::Counted { seconds: 60, used: CapSet::of(&[0]) });
        assert_eq!(checks("db", Some(&observed)), Checks::Unknown);
        assert_eq!(checks("web", Some(&Observed { capabilities: false, ..observed })), Checks::Uncounted);
        assert_eq!(checks("web", None), Checks::Uncounted);
    }
}
