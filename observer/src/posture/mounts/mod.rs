//! Parts of the host's tree in a container.

mod places;

use std::{cmp::Reverse, collections::BTreeMap, sync::LazyLock};

use super::{Definition, Evidence, Host, HostMount, Rule, Subject, Verdict, listed};
use crate::model::Severity;
use places::{PLACES, Place, RUNTIME_SOCKET_NAMES, RUNTIME_SOCKETS};

pub const HOST_MOUNT: Rule = Rule { definition: &HOST_MOUNT_DEFINITION, judge: host_mounts };
pub const RUNTIME_SOCKET: Rule = Rule { definition: &RUNTIME_SOCKET_DEFINITION, judge: runtime_sockets };

static HOST_MOUNT_DEFINITION: Definition = Definition {
    id: "posture.host_mount",
    title: "A part of the host's file system is mounted",
    severity: Severity::Critical,
    what: "Every mount of a path of the host, by what lies there. Volumes of the runtimes and the files that \
           they put into every container (/etc/hosts and the like) are none of it.",
    why: "Who can write to /, /etc, /root, /proc, /sys or a runtime's directory on the host is its root \
          (`critical`); who can read them finds its keys (`warning`). Other writable directories (`notice`) are \
          a way in for what their host-side readers trust.",
    advice: "Mount the one file or directory that is needed, read-only, or use a volume.",
};

static RUNTIME_SOCKET_DEFINITION: Definition = Definition {
    id: "posture.runtime_socket",
    title: "A container runtime's socket is mounted",
    severity: Severity::Critical,
    what: "The sockets of docker, containerd, CRI-O, podman and buildkit, and directories below /run that hold them.",
    why: "Whoever can connect may start a privileged container, that is, be root on the host. A read-only mount \
          makes no difference: connecting is not writing.",
    advice: "Give the container an API of its own, such as a proxy that passes only what it needs; to build \
             images, use a rootless builder.",
};

/// A path without `.`, `..` and doubled slashes, by its names; and /var/run as what it is, a link to /run.
fn names(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    if let ["var", "run", ..] = names.as_slice() {
        names.remove(0);
    }
    names
}

/// Whether the second path is the first, or lies below it. `*` in the first stands for any one name.
fn holds(pattern: &[&str], path: &[&str]) -> bool {
    pattern.len() <= path.len()
        && pattern.iter().zip(path).all(|(pattern, name)| *pattern == "*" || pattern == name)
}

/// The same with the `*` in the path: whether this directory holds what the pattern names.
fn above(directory: &[&str], pattern: &[&str]) -> bool {
    directory.len() < pattern.len()
        && directory.iter().zip(pattern).all(|(name, pattern)| *pattern == "*" || pattern == name)
}

/// The table, taken apart once: a node has thousands of mounts.
static BY_NAMES: LazyLock<Vec<(Vec<&str>, &Place)>> =
    LazyLock::new(|| PLACES.iter().map(|place| (names(place.path), place)).collect());

/// How much a mount matters, and which place makes it so.
fn weigh(mount: &HostMount) -> Option<(Severity, &'static Place)> {
    let source = names(&mount.source);
    let severity = |place: &Place| if mount.writable { place.writable } else { place.read_only };
    // Of places of the same length, the one without `*` counts.
    let own = BY_NAMES
        .iter()
        .filter(|(path, _)| holds(path, &source))
        .max_by_key(|(path, _)| (path.len(), Reverse(path.iter().filter(|name| **name == "*").count())))
        .map(|(_, place)| *place)
        // "/" holds whatever no other place does, and says nothing about it.
        .filter(|place| place.path != "/" || source.is_empty());
    let below = BY_NAMES.iter().filter(|(path, _)| !source.is_empty() && above(&source, path));
    own.into_iter()
        .chain(below.map(|(_, place)| *place))
        .filter_map(|place| Some((severity(place)?, place)))
        // The first of the worst: its own place rather than one below.
        .reduce(|worst, other| if other.0 > worst.0 { other } else { worst })
        .or_else(|| {
            let elsewhere = own.is_none() && mount.writable && !is_runtimes_file(mount);
            elsewhere.then_some((Severity::Notice, &ELSEWHERE))
        })
}

static ELSEWHERE: Place =
    Place { path: "", writable: Some(Severity::Notice), read_only: None, means: "a directory of the host" };

/// Files that a runtime makes for each container, wherever it keeps them. Only where no sensitive place is the source
/// does the destination say anything.
fn is_runtimes_file(mount: &HostMount) -> bool {
    const FILES: [&str; 7] = [
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/dev/shm",
        "/dev/termination-log",
        "/run/.containerenv",
        "/run/secrets",
    ];
    FILES.iter().any(|file| names(file) == names(&mount.destination))
}

fn is_runtime_socket(mount: &HostMount) -> bool {
    let source = names(&mount.source);
    let named = source.last().is_some_and(|name| RUNTIME_SOCKET_NAMES.contains(name));
    // Larger directories (/, /var) matter for more than that, and are judged as host mounts.
    let in_run = source.first() == Some(&"run");
    named || in_run && RUNTIME_SOCKETS.iter().any(|socket| above(&source, &names(socket)))
}

fn shown(mount: &HostMount) -> String {
    let mode = if mount.writable { "writable" } else { "read-only" };
    format!("{} at {} ({mode})", mount.source, mount.destination)
}

fn runtime_sockets(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let Some(mounts) = &subject.mounts else {
        verdict.not_known(&RUNTIME_SOCKET_DEFINITION, "its mounts");
        return;
    };
    for mount in mounts.iter().filter(|mount| is_runtime_socket(mount)) {
        let socket = names(&mount.source).last().is_some_and(|name| RUNTIME_SOCKET_NAMES.contains(name));
        let what = if socket { "the socket" } else { "a directory with sockets of runtimes" };
        let evidence = Evidence { mounts: vec![mount.clone()], ..Evidence::default() };
        let reason = format!("it has {what} {}", shown(mount));
        verdict.find(&RUNTIME_SOCKET_DEFINITION, Severity::Critical, reason, evidence);
    }
}

/// What matters gets a finding for each mount; notices are gathered.
fn host_mounts(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let Some(mounts) = &subject.mounts else {
        verdict.not_known(&HOST_MOUNT_DEFINITION, "its mounts");
        return;
    };
    let mut gathered: BTreeMap<Severity, Vec<HostMount>> = BTreeMap::new();
    for mount in mounts.iter().filter(|mount| !is_runtime_socket(mount)) {
        let Some((severity, place)) = weigh(mount) else { continue };
        if severity < Severity::Warning {
            gathered.entry(severity).or_default().push(mount.clone());
            continue;
        }
        let evidence = Evidence { mounts: vec![mount.clone()], ..Evidence::default() };
        let reason = format!("it has {}: {}", shown(mount), place.means);
        verdict.find(&HOST_MOUNT_DEFINITION, severity, reason, evidence);
    }
    for (severity, mounts) in gathered {
        let reason = format!("it has {}", listed(&mounts.iter().map(shown).collect::<Vec<_>>()));
        verdict.find(&HOST_MOUNT_DEFINITION, severity, reason, Evidence { mounts, ..Evidence::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn with(mounts: Vec<HostMount>) -> Subject {
        Subject { mounts: Some(mounts), ..docker_default() }
    }

    const C: &[Severity] = &[Severity::Critical];
    const W: &[Severity] = &[Severity::Warning];
    const N: &[Severity] = &[Severity::Notice];
    const NONE: &[Severity] = &[];

    #[test]
    fn places_weigh_by_what_lies_there() {
        for (source, writable, read_only) in [
            ("/", C, W),
            ("/etc", C, W),
            ("/etc/", C, W),
            ("//etc/./", C, W),
            ("/srv/../etc", C, W),
            ("/etc/shadow", C, W),
            ("/etc/kubernetes", C, W),
            ("/etcetera", N, NONE),
            ("/etc/localtime", N, NONE),
            ("/etc/ssl/certs", C, NONE),
            ("/etc/ssl", C, W),
            ("/root", C, W),
            ("/root/.ssh", C, W),
            ("/home/user", W, W),
            ("/home/user/.local/share/containers/storage", W, W),
            ("/home/user/.local/share/containers/storage/volumes/db/_data", NONE, NONE),
            ("/run/user/1000/containers/overlay-containers/3f2a/userdata/hosts", NONE, NONE),
            ("/run/systemd/nspawn/propagate/web", NONE, NONE),
            ("/var/lib/lxcfs/proc/cpuinfo", NONE, NONE),
            ("/proc", C, W),
            ("/proc/sys", C, W),
            ("/sys", C, NONE),
            ("/sys/fs/cgroup", C, NONE),
            ("/dev", C, W),
            ("/dev/sda", C, W),
            ("/dev/null", NONE, NONE),
            ("/dev/pts", W, W),
            ("/dev/pts/3", NONE, NONE),
            ("/dev/fuse", N, N),
            ("/usr/bin", C, NONE),
            ("/lib/modules", C, NONE),
            ("/var", C, W),
            ("/var/lib", C, W),
            ("/var/log", W, N),
            ("/var/lib/postgresql", N, NONE),
            ("/var/lib/kubelet", C, W),
            ("/var/lib/kubelet/pki", C, W),
            ("/var/lib/kubelet/pods", C, W),
            ("/var/lib/kubelet/pods/6f3a", C, W),
            ("/var/lib/kubelet/pods/6f3a/volumes/kubernetes.io~empty-dir/x", NONE, NONE),
            ("/var/lib/docker", C, W),
            ("/var/lib/docker/volumes/db/_data", NONE, NONE),
            ("/var/lib/docker/volumes/db/_data/sub", NONE, NONE),
            ("/var/lib/docker/volumes", C, W),
            ("/var/lib/docker/containers/3f2a/hosts", NONE, NONE),
            ("/run/dbus/system_bus_socket", W, W),
            ("/var/run/dbus", W, W),
            ("/run/systemd/private", C, W),
            ("/opt", C, NONE),
            ("/opt/app", N, NONE),
            ("/srv/data", N, NONE),
            ("/tmp", N, N),
            ("relative", N, NONE),
        ] {
            assert_eq!(severities(HOST_MOUNT, &with(vec![mount(source, true)])), writable, "{source}");
            assert_eq!(severities(HOST_MOUNT, &with(vec![mount(source, false)])), read_only, "{source}, ro");
            assert_eq!(severities(RUNTIME_SOCKET, &with(vec![mount(source, true)])), NONE, "{source}");
        }
    }

    #[test]
    fn a_runtimes_socket_is_critical_read_only_or_not() {
        for source in [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/crio/crio.sock",
            "/run/user/1000/podman/podman.sock",
            "/srv/elsewhere/docker.sock",
            "/run",
            "/var/run",
            "/var/run/",
            "/run/containerd",
            "/run/user/1000",
            "/run/k3s",
        ] {
            for writable in [true, false] {
                let subject = with(vec![mount(source, writable)]);
                assert_eq!(severities(RUNTIME_SOCKET, &subject), C, "{source}");
                assert_eq!(severities(HOST_MOUNT, &subject), NONE, "{source} is told once");
            }
        }
        for source in ["/", "/var", "/run/lock", "/run/dockers", "/srv/docker.sock/x", "/srv/my-docker.sock"]
        {
            assert_eq!(severities(RUNTIME_SOCKET, &with(vec![mount(source, true)])), NONE, "{source}");
        }
    }

    #[test]
    fn what_matters_is_told_one_by_one_and_the_rest_together() {
        let mounts =
            ["/etc", "/root", "/srv/a", "/srv/b"].into_iter().map(|source| mount(source, true)).collect();
        let verdict = judged(HOST_MOUNT, &with(mounts), &host());
        let reasons: Vec<&str> = verdict.findings.iter().map(|finding| finding.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "it has /etc at /mnt (writable): the host's configuration: users, passwords, keys, scheduled jobs",
                "it has /root at /mnt (writable): files and keys of the host's root",
                "it has /srv/a at /mnt (writable) and /srv/b at /mnt (writable)",
            ]
        );
        assert_eq!(verdict.findings[2].evidence.mounts.len(), 2);
    }

    #[test]
    fn a_runtimes_own_files_are_known_by_their_place_but_not_if_they_are_sensitive() {
        let at = |source: &str, destination: &str| {
            let destination = destination.into();
            with(vec![HostMount { source: source.into(), destination, writable: true }])
        };
        for (source, destination, expected) in [
            ("/data/docker/containers/3f2a/hosts", "/etc/hosts", NONE),
            ("/data/docker/containers/3f2a/hosts", "/etc/hosts/", NONE),
            ("/data/docker/containers/3f2a/hosts", "/etc/passwd", N),
            ("/etc/shadow", "/etc/hosts", C),
        ] {
            assert_eq!(severities(HOST_MOUNT, &at(source, destination)), expected, "{source} {destination}");
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let subject = Subject { mounts: None, ..docker_default() };
        assert_unknown(HOST_MOUNT, &subject, &host());
        assert_unknown(RUNTIME_SOCKET, &subject, &host());
    }

    #[test]
    fn the_table_is_in_the_form_in_which_paths_are_compared() {
        for place in PLACES {
            let normal = format!("/{}", names(place.path).join("/"));
            assert_eq!(place.path, normal);
            assert!(place.writable >= place.read_only, "{normal}");
            assert_eq!(PLACES.iter().filter(|other| other.path == place.path).count(), 1, "{normal}");
        }
        for socket in RUNTIME_SOCKETS {
            assert_eq!(*socket, format!("/{}", names(socket).join("/")));
            assert!(names(socket).last().is_some_and(|name| RUNTIME_SOCKET_NAMES.contains(name)), "{socket}");
        }
    }
}
