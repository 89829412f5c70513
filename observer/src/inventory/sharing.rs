//! Who shares which namespace.

use std::{
    collections::BTreeMap,
    fs::File,
    os::{fd::AsRawFd, fd::FromRawFd, fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use serde::Serialize;

use super::Look;
use crate::model::NsType;

/// A namespace and those in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// As in /proc/PID/ns; `pid_for_children` and `time_for_children` count as `pid` and `time`.
    pub r#type: String,
    pub inode: u32,
    pub host: bool,
    /// The user namespace that owns it (ioctl_ns(2), NS_GET_USERNS); absent where that may not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// By container, in the order of the look.
    pub members: Vec<Share>,
    /// Processes in it that are in no container.
    pub host_processes: usize,
    /// The process by which it was looked at.
    pub example_pid: u32,
}

/// A container's part in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    pub container: String,
    pub processes: usize,
    /// The one that started first.
    pub pid: u32,
}

/// All namespaces that somebody is in, by type, the host's first, then those that most containers share.
pub fn sharing(look: &Look) -> Vec<Namespace> {
    let order: BTreeMap<&str, usize> =
        look.containers.iter().enumerate().map(|(at, container)| (container.id.as_str(), at)).collect();
    let mut found: BTreeMap<(&'static str, u32), Namespace> = BTreeMap::new();
    for process in &look.processes {
        for ns in NsType::all().filter(|ns| ns.kind() == *ns) {
            let Some(inode) = process.namespaces.get(ns.name()).copied() else { continue };
            let namespace = found.entry((ns.name(), inode)).or_insert_with(|| Namespace {
                r#type: ns.name().to_owned(),
                inode,
                host: look.host.namespaces.get(ns.name()) == Some(&inode),
                owner: None,
                members: Vec::new(),
                host_processes: 0,
                example_pid: process.pid,
            });
            let Some(container) = &process.container else {
                namespace.host_processes += 1;
                continue;
            };
            match namespace.members.iter_mut().find(|share| share.container == *container) {
                Some(share) => share.processes += 1,
                None => namespace.members.push(Share {
                    container: container.clone(),
                    processes: 1,
                    pid: process.pid,
                }),
            }
        }
    }
    let mut found: Vec<Namespace> = found.into_values().collect();
    for namespace in &mut found {
        namespace.members.sort_by_key(|share| order.get(share.container.as_str()).copied());
    }
    found.sort_by(|a, b| {
        let rank = |n: &Namespace| (n.r#type.clone(), !n.host, std::cmp::Reverse(n.members.len()), n.inode);
        rank(a).cmp(&rank(b))
    });
    found
}

/// Asks the kernel for the owners of these namespaces.
pub fn ask_owners(proc: &Path, namespaces: &mut [Namespace]) {
    for namespace in namespaces {
        let path = proc.join(namespace.example_pid.to_string()).join("ns").join(&namespace.r#type);
        namespace.owner = File::open(path).ok().and_then(|file| owner(&file, namespace.inode));
    }
}

fn owner(namespace: &File, inode: u32) -> Option<u32> {
    /// include/uapi/linux/nsfs.h
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // The process may be another by now.
    if namespace.metadata().ok()?.ino() != u64::from(inode) {
        return None;
    }
    // SAFETY: a request without argument on an open file; on any other kind of file it fails.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new descriptor that nothing else owns.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    u32::try_from(owner.metadata().ok()?.ino()).ok()
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};

    #[test]
    fn a_shared_network_namespace_has_both_containers_in_it() {
        let look = testing::look();
        let all = sharing(&look);
        let net: Vec<_> = all.iter().filter(|n| n.r#type == "net").collect();
        assert_eq!(net.len(), 2, "{net:?}");
        assert!(net[0].host && net[0].members.is_empty() && net[0].host_processes == 1);
        let members: Vec<_> = net[1].members.iter().map(|m| (m.container.as_str(), m.processes)).collect();
        assert_eq!(members, [(testing::DB, 2), (testing::WEB, 1)]);
        let mnt: Vec<_> = all.iter().filter(|n| n.r#type == "mnt").map(|n| n.members.len()).collect();
        assert_eq!(mnt, [0, 1, 1]);
    }

    #[test]
    fn the_kernel_names_the_owner() {
        let own = File::open("/proc/self/ns/net").unwrap();
        let inode = own.metadata().unwrap().ino() as u32;
        let user = std::fs::metadata("/proc/self/ns/user").unwrap().ino() as u32;
        // In a user namespace made by somebody else the owner may be out of sight (EPERM), never another one.
        assert!(owner(&own, inode).is_none_or(|owner| owner == user), "{user}");
        assert_eq!(owner(&own, inode + 1), None);
        assert_eq!(owner(&File::open("/dev/null").unwrap(), inode), None);
    }
}
