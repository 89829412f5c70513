//! What of the host's tree matters, and how much.

use crate::model::Severity;

/// A path of the host, and what a mount of it, of something below it, or of a directory that holds it gives away.
pub struct Place {
    pub path: &'static str,
    /// If it can be written to.
    pub writable: Option<Severity>,
    /// If it can only be read.
    pub read_only: Option<Severity>,
    pub means: &'static str,
}

const fn place(
    path: &'static str,
    writable: Option<Severity>,
    read_only: Option<Severity>,
    means: &'static str,
) -> Place {
    Place { path, writable, read_only, means }
}

const CRITICAL: Option<Severity> = Some(Severity::Critical);
const WARNING: Option<Severity> = Some(Severity::Warning);
const NOTICE: Option<Severity> = Some(Severity::Notice);

/// The longest path that holds a mount's source counts; so an exception stands below what it is an exception of.
pub const PLACES: &[Place] = &[
    place("/", CRITICAL, WARNING, "the host's whole file system"),
    place("/bin", CRITICAL, None, "programs of the host"),
    place("/sbin", CRITICAL, None, "programs of the host"),
    place("/lib", CRITICAL, None, "libraries and kernel modules of the host"),
    place("/lib64", CRITICAL, None, "libraries of the host"),
    place("/usr", CRITICAL, None, "programs and libraries of the host"),
    place("/usr/share", NOTICE, None, "shared data of the host"),
    place("/boot", CRITICAL, NOTICE, "the host's kernel"),
    place("/dev", CRITICAL, WARNING, "the host's devices, disks included"),
    // What every container gets of it, from the host's where it may not make its own.
    place("/dev/full", None, None, "a device that is always full"),
    place("/dev/null", None, None, "a device that does nothing"),
    place("/dev/random", None, None, "random numbers"),
    place("/dev/tty", None, None, "the own terminal"),
    place("/dev/urandom", None, None, "random numbers"),
    place("/dev/zero", None, None, "a device that gives zeros"),
    place("/dev/pts", WARNING, WARNING, "terminals of the host's users"),
    place("/dev/pts/*", None, None, "a terminal"),
    place("/dev/dri", NOTICE, NOTICE, "the host's graphics card"),
    place("/dev/fuse", NOTICE, NOTICE, "the device that file systems of users are served by"),
    place("/dev/kvm", NOTICE, NOTICE, "the device that virtual machines are run by"),
    place("/dev/net/tun", NOTICE, NOTICE, "the device that tunnels are made by"),
    place("/dev/shm", WARNING, NOTICE, "shared memory of the host's processes"),
    place("/dev/log", NOTICE, NOTICE, "the host's log"),
    place("/etc", CRITICAL, WARNING, "the host's configuration: users, passwords, keys, scheduled jobs"),
    place("/etc/localtime", NOTICE, None, "the host's time zone"),
    place("/etc/timezone", NOTICE, None, "the host's time zone"),
    place("/etc/hosts", WARNING, None, "the host's table of names"),
    place("/etc/hostname", WARNING, None, "the host's name"),
    place("/etc/machine-id", WARNING, None, "the host's identity"),
    place("/etc/os-release", WARNING, None, "the name of the host's system"),
    place("/etc/resolv.conf", WARNING, None, "the host's name servers"),
    place("/etc/ca-certificates", CRITICAL, None, "whom the host trusts"),
    place("/etc/pki", CRITICAL, WARNING, "certificates and keys of the host"),
    place("/etc/pki/ca-trust", CRITICAL, None, "whom the host trusts"),
    place("/etc/ssl/certs", CRITICAL, None, "whom the host trusts"),
    place("/home", WARNING, WARNING, "files and keys of the host's users"),
    place(
        "/home/*/.local/share/containers/storage/overlay-containers/*/*",
        None,
        None,
        "files for one container",
    ),
    place("/home/*/.local/share/containers/storage/volumes/*/_data", None, None, "a volume of podman"),
    place("/home/*/.local/share/docker/containers/*/*", None, None, "docker's files for one container"),
    place("/home/*/.local/share/docker/volumes/*/_data", None, None, "a volume of docker"),
    place("/root", CRITICAL, WARNING, "files and keys of the host's root"),
    place("/proc", CRITICAL, WARNING, "every process of the host, and by writing its kernel's settings"),
    place("/sys", CRITICAL, None, "the host's kernel objects: devices, cgroups, modules"),
    place("/run", CRITICAL, WARNING, "sockets of the host's services, container runtimes among them"),
    place("/run/dbus", WARNING, WARNING, "the host's system bus, by which services obey root"),
    place("/run/lock", NOTICE, None, "locks of the host's services"),
    place("/run/log", WARNING, NOTICE, "the host's log"),
    place("/run/netns", WARNING, WARNING, "network namespaces of others"),
    place("/run/systemd", CRITICAL, WARNING, "the service manager's sockets"),
    place("/run/systemd/journal", NOTICE, NOTICE, "the host's log"),
    place("/run/systemd/nspawn", None, None, "systemd-nspawn's files for its containers"),
    place("/run/systemd/resolve", WARNING, None, "the host's name servers"),
    place("/run/udev", WARNING, None, "what the host knows of its devices"),
    place("/run/user", WARNING, WARNING, "sockets of the host's users"),
    place("/run/user/*/containers/overlay-containers/*/*", None, None, "files for one container"),
    place("/run/xtables.lock", NOTICE, None, "the lock of the host's packet filter"),
    place("/var", CRITICAL, WARNING, "state of the host's services, container runtimes and kubelet included"),
    place("/var/cache", NOTICE, None, "caches of the host"),
    place(
        "/var/log",
        WARNING,
        NOTICE,
        "logs of the host; a link put there can make the kubelet read other files",
    ),
    place("/var/tmp", NOTICE, NOTICE, "temporary files of the host's processes"),
    place("/var/spool", WARNING, WARNING, "spools of the host, scheduled jobs included"),
    place("/var/spool/cron", CRITICAL, WARNING, "the host's scheduled jobs"),
    // Data of applications is often kept below, and is what a mount is for.
    place(
        "/var/lib",
        CRITICAL,
        WARNING,
        "state of the host's services, container runtimes and kubelet included",
    ),
    place("/var/lib/*", NOTICE, None, "state of a service of the host"),
    place(
        "/var/lib/kubelet",
        CRITICAL,
        WARNING,
        "the kubelet's credentials, and files of every pod on this node",
    ),
    place(
        "/var/lib/kubelet/device-plugins",
        WARNING,
        WARNING,
        "the sockets by which devices are given to pods",
    ),
    place("/var/lib/kubelet/plugins", WARNING, WARNING, "the sockets by which volumes are given to pods"),
    place(
        "/var/lib/kubelet/plugins_registry",
        WARNING,
        WARNING,
        "the sockets by which plugins present themselves",
    ),
    place("/var/lib/kubelet/pods/*/*", None, None, "a pod's own files"),
    place("/var/lib/docker", CRITICAL, WARNING, "files and configuration of every container of docker"),
    place(
        "/var/lib/docker/containers",
        CRITICAL,
        NOTICE,
        "configuration and logs of every container of docker",
    ),
    place("/var/lib/docker/containers/*/*", None, None, "docker's files for one container"),
    place("/var/lib/docker/volumes/*/_data", None, None, "a volume of docker"),
    place("/var/lib/containerd", CRITICAL, WARNING, "files of every container of containerd"),
    place(
        "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*/*",
        None,
        None,
        "containerd's files for one pod",
    ),
    place("/var/lib/containers", CRITICAL, WARNING, "files of every container of podman and CRI-O"),
    place("/var/lib/containers/storage/volumes/*/_data", None, None, "a volume of podman"),
    place("/var/lib/containers/storage/overlay-containers/*/*", None, None, "files for one container"),
    place("/run/containers/storage/overlay-containers/*/*", None, None, "files for one container"),
    place(
        "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/*/*",
        None,
        None,
        "containerd's files for one pod",
    ),
    place(
        "/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/*/*",
        None,
        None,
        "containerd's files for one pod",
    ),
    place("/var/lib/rancher", CRITICAL, WARNING, "credentials and state of k3s or RKE2"),
    place(
        "/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/*/*",
        None,
        None,
        "containerd's files for one pod",
    ),
    place(
        "/var/lib/etcd",
        CRITICAL,
        WARNING,
        "the whole state of a Kubernetes cluster, its secrets included",
    ),
    place("/var/lib/lxcfs", None, None, "what lxcfs shows of /proc and /sys to one container"),
    place("/var/lib/cni", WARNING, None, "state of the container network"),
    place("/opt/cni", CRITICAL, None, "programs that the host runs as root for each container's network"),
    place("/tmp", NOTICE, NOTICE, "temporary files of the host's processes"),
];

/// Sockets by which a runtime obeys whoever can connect; read-only mounts make no difference to that. `*` stands for
/// any one name.
pub const RUNTIME_SOCKETS: &[&str] = &[
    "/run/docker.sock",
    "/run/user/*/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/docker/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/user/*/podman/podman.sock",
    "/run/cri-dockerd.sock",
    "/run/dockershim.sock",
    "/run/buildkit/buildkitd.sock",
];

/// Names that tell such a socket wherever it lies.
pub const RUNTIME_SOCKET_NAMES: &[&str] = &[
    "docker.sock",
    "containerd.sock",
    "crio.sock",
    "podman.sock",
    "cri-dockerd.sock",
    "dockershim.sock",
    "buildkitd.sock",
];
