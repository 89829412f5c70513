//! What a container is to be like, and its OCI config.json.

use crate::{cgroup, shell};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Docker's default set, so that a bare runc container is what people run.
pub const DEFAULT_CAPS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All that a kernel of 5.9 and later has, by their numbers.
const ALL_CAPS: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What the attacks by namespaces need besides.
pub const ESCAPE_CAPS: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"];

/// A container to be; see the methods for what differs from a default one.
#[derive(Debug, Clone)]
pub struct Spec {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) caps: Vec<String>,
    /// (OCI type, path to join).
    namespaces: Vec<(&'static str, Option<PathBuf>)>,
    /// (source, destination, writable).
    pub(crate) binds: Vec<(PathBuf, PathBuf, bool)>,
    seccomp: Option<Value>,
    apparmor: Option<String>,
    memory: Option<u64>,
    pids: Option<u64>,
    cpu_quota_us: Option<u64>,
    /// In which cgroup its own is.
    parent: String,
    pub(crate) private_root: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_net: bool,
}

impl Spec {
    /// A container with namespaces of its own except user, cgroup and time, docker's default capabilities, no
    /// seccomp filter, and the shell as its first process. `name` ends its id.
    pub fn new(name: &str) -> Self {
        let own = ["pid", "network", "ipc", "uts", "mount"];
        Self {
            name: name.to_owned(),
            args: shell::ARGS.map(str::to_owned).to_vec(),
            caps: DEFAULT_CAPS.map(str::to_owned).to_vec(),
            namespaces: own.map(|kind| (kind, None)).to_vec(),
            binds: Vec::new(),
            seccomp: None,
            apparmor: None,
            memory: None,
            pids: None,
            cpu_quota_us: None,
            parent: cgroup::home(),
            private_root: false,
            host_pid: false,
            host_net: false,
        }
    }

    /// The container that every namespace attack needs: it sees the host's processes and may join their namespaces.
    pub fn privileged(name: &str) -> Self {
        Self::new(name).host_pid().caps(&ESCAPE_CAPS)
    }

    /// Another first process than the shell.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// More capabilities than docker's default ones.
    pub fn caps(mut self, caps: &[&str]) -> Self {
        self.caps.extend(caps.iter().map(|cap| (*cap).to_owned()));
        self
    }

    /// All capabilities that this process may pass on: that is all there are, but where it was started without some.
    pub fn all_caps(mut self) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
        let bounding =
            status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("our own bounding set");
        let bounding = u64::from_str_radix(bounding.trim(), 16).expect("a mask");
        let ours = ALL_CAPS.iter().enumerate().filter(|(number, _)| bounding >> number & 1 != 0);
        self.caps = ours.map(|(_, cap)| (*cap).to_owned()).collect();
        self
    }

    pub fn without_cap(mut self, cap: &str) -> Self {
        self.caps.retain(|own| own != cap);
        self
    }

    pub fn host_pid(mut self) -> Self {
        self.host_pid = true;
        self.without("pid")
    }

    pub fn host_net(mut self) -> Self {
        self.host_net = true;
        self.without("network")
    }

    fn without(mut self, kind: &str) -> Self {
        self.namespaces.retain(|(own, _)| *own != kind);
        self
    }

    /// Joins another process's namespace from the start, as `--network container:` does.
    pub fn join(mut self, kind: &'static str, path: impl Into<PathBuf>) -> Self {
        self = self.without(kind);
        self.namespaces.push((kind, Some(path.into())));
        self
    }

    /// A cgroup namespace of its own.
    pub fn cgroup_namespace(mut self) -> Self {
        self.namespaces.push(("cgroup", None));
        self
    }

    pub fn bind(mut self, from: impl Into<PathBuf>, to: impl Into<PathBuf>, writable: bool) -> Self {
        self.binds.push((from.into(), to.into(), writable));
        self
    }

    /// A seccomp profile, as in OCI's `linux.seccomp`.
    pub fn seccomp(mut self, profile: Value) -> Self {
        self.seccomp = Some(profile);
        self
    }

    /// A profile that is loaded.
    pub fn apparmor(mut self, profile: &str) -> Self {
        self.apparmor = Some(profile.to_owned());
        self
    }

    /// At most so many bytes of memory.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// At most so much CPU time in each 100 ms.
    pub fn cpu_quota_us(mut self, quota: u64) -> Self {
        self.cpu_quota_us = Some(quota);
        self
    }

    /// At most so many tasks.
    pub fn pids(mut self, tasks: u64) -> Self {
        self.pids = Some(tasks);
        self
    }

    /// Keeps runc's state below the scratch directory instead of /run/runc.
    pub fn private_root(mut self) -> Self {
        self.private_root = true;
        self
    }

    /// In another cgroup than the one that holds the tests' containers.
    pub fn below(mut self, parent: &str) -> Self {
        parent.clone_into(&mut self.parent);
        self
    }

    /// In every hierarchy.
    pub(crate) fn cgroup_path(&self, id: &str) -> String {
        cgroup::of_container(&self.parent, id)
    }

    pub(crate) fn config(&self, id: &str, rootfs: &Path) -> Value {
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ];
        // A new sysfs needs a network namespace of one's own; a host network container binds the host's.
        let sys = if self.host_net
            || self.namespaces.iter().any(|(kind, path)| *kind == "network" && path.is_some())
        {
            json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        } else {
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        };
        mounts.insert(5, sys);
        for (from, to, writable) in &self.binds {
            let access = if *writable { "rw" } else { "ro" };
            mounts.push(json!({"destination": to, "type": "bind", "source": from, "options": ["bind", "rprivate", access]}));
        }
        let namespaces: Vec<Value> = self
            .namespaces
            .iter()
            .map(|(kind, path)| match path {
                Some(path) => json!({"type": kind, "path": path}),
                None => json!({"type": kind}),
            })
            .collect();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": self.args,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {"bounding": self.caps, "effective": self.caps, "permitted": self.caps},
                "noNewPrivileges": false,
            },
            "root": {"path": rootfs, "readonly": true},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": self.cgroup_path(id),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": namespaces,
            },
        });
        if self.namespaces.iter().any(|(kind, path)| *kind == "uts" && path.is_none()) {
            config["hostname"] = json!(self.name);
        }
        if let Some(bytes) = self.memory {
            config["linux"]["resources"]["memory"] = json!({ "limit": bytes });
        }
        if let Some(quota) = self.cpu_quota_us {
            config["linux"]["resources"]["cpu"] = json!({ "quota": quota, "period": 100_000 });
        }
        if let Some(tasks) = self.pids {
            config["linux"]["resources"]["pids"] = json!({ "limit": tasks });
        }
        if let Some(profile) = &self.apparmor {
            config["process"]["apparmorProfile"] = json!(profile);
        }
        if let Some(profile) = &self.seccomp {
            config["linux"]["seccomp"] = profile.clone();
        }
        config
    }
}
