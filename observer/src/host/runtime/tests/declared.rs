//! Declarations: OCI's and LXC's.

use serde_json::json;

use super::{Disk, file, some};
use crate::{
    host::runtime::{details, files::Files, oci},
    model::{DeclaredLimits, DeclaredMount, DeclaredSource, NamespaceSource},
};

#[test]
fn an_oci_configuration_is_read_part_by_part() {
    let config = json!({
        "process": {
            "user": {"uid": 1000, "gid": 100, "additionalGids": [5]},
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_WARP_DRIVE"], "effective": ["CAP_CHOWN"],
                "permitted": ["cap_chown"], "inheritable": "not a list", "ambient": [7]},
            "apparmorProfile": "docker-default", "selinuxLabel": "system_u:system_r:container_t:s0",
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "web",
        "mounts": [
            {"destination": "/data", "source": "/srv/data", "type": "none", "options": ["rbind", "ro"]},
            {"destination": "/b", "source": "/srv/b", "options": ["bind"]},
            {"destination": "/proc", "source": "proc", "type": "proc"},
            {"source": "nowhere"}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/42/ns/net"}, {"type": "mount"},
                {"type": "warp"}],
            "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65_536}, {"containerID": -1}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]},
            "resources": {
                "memory": {"limit": 8_000_000, "swap": -1}, "pids": {"limit": 0},
                "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0-1"},
                "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3}]
            },
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys", "/proc/bus"]
        }
    });
    let disk = Disk::new("oci", &[file("config.json", config)]);
    let declared = oci::declared(&mut Files::default(), &disk.0.join("config.json")).unwrap();
    let net = NamespaceSource::Joined { target: "/proc/42/ns/net".into() };
    let of = |name: &str| declared.namespaces.get(name).unwrap();
    assert_eq!((of("pid"), of("mnt"), of("net")), (&NamespaceSource::Own, &NamespaceSource::Own, &net));
    for shared in ["cgroup", "ipc", "time", "user", "uts"] {
        assert_eq!(of(shared), &NamespaceSource::Host, "{shared}");
    }
    assert_eq!(declared.unknown_namespaces, ["warp"]);
    let capabilities = declared.capabilities.as_ref().unwrap();
    assert_eq!((capabilities.bounding, capabilities.effective), (1 | 1 << 12, 1));
    assert_eq!((capabilities.permitted, capabilities.inheritable, capabilities.ambient), (1, 0, 0));
    assert_eq!(capabilities.unknown, ["CAP_WARP_DRIVE"]);
    let seccomp = declared.seccomp.as_ref().unwrap();
    assert_eq!(seccomp.default_action.as_deref(), Some("SCMP_ACT_ERRNO"));
    assert_eq!((seccomp.rules, seccomp.syscalls, seccomp.notifies), (2, 3, true));
    assert_eq!(declared.apparmor_profile.as_deref(), Some("docker-default"));
    assert!(declared.no_new_privileges && declared.root_readonly && !declared.all_devices);
    assert_eq!((declared.uid, declared.gid), (Some(1000), Some(100)));
    assert_eq!(declared.uid_map.len(), 1);
    let bind = |destination: &str, source: &str, options: &[&str]| DeclaredMount {
        destination: destination.into(),
        source: some(source),
        fs_type: some("bind"),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    assert_eq!(declared.mounts[0], bind("/data", "/srv/data", &["rbind", "ro"]));
    assert_eq!(declared.mounts[1], bind("/b", "/srv/b", &["bind"]));
    assert_eq!(declared.mounts[2].fs_type.as_deref(), Some("proc"));
    assert_eq!((declared.mounts.len(), declared.mounts_left_out), (3, 1));
    let limits = DeclaredLimits {
        memory_bytes: Some(8_000_000),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: some("0-1"),
        ..DeclaredLimits::default()
    };
    assert_eq!(declared.limits, limits);
    assert_eq!((declared.masked_paths, declared.readonly_paths), (1, 2));
}

#[test]
fn a_privileged_configuration_and_a_nonsensical_one() {
    let privileged = json!({"linux": {"resources": {"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "access": "rwm"}]}}});
    let many = json!({"mounts": vec![json!({"destination": "/x"}); 1000]});
    let nonsense =
        json!({"process": 7, "linux": {"seccomp": [], "namespaces": {"type": "pid"}}, "mounts": "all"});
    let disk = Disk::new(
        "odd",
        &[
            file("privileged", privileged),
            file("many", many),
            file("nonsense", nonsense),
            file("list", json!([1])),
        ],
    );
    let read = |name: &str| oci::declared(&mut Files::default(), &disk.0.join(name)).unwrap();
    let privileged = read("privileged");
    assert!(privileged.all_devices && privileged.seccomp.is_none() && privileged.capabilities.is_none());
    assert_eq!(privileged.masked_paths, 0);
    let many = read("many");
    assert_eq!((many.mounts.len(), many.mounts_left_out), (256, 744));
    for name in ["nonsense", "list"] {
        let odd = read(name);
        assert!(odd.namespaces.values().all(|source| *source == NamespaceSource::Host), "{name}");
        assert_eq!((odd.mounts.len(), odd.uid, odd.seccomp), (0, None, None), "{name}");
    }
}

#[test]
fn an_lxc_configuration() {
    let text = "# made by hand\n\
        lxc.uts.name = c1\nlxc.rootfs.path = dir:/var/lib/lxc/c1/rootfs\nlxc.cap.drop = sys_module mac_admin\n\
        lxc.cap.drop = sys_time warp\nlxc.apparmor.profile = generated\nlxc.no_new_privs = 1\n\
        lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\nlxc.idmap = b 70000 1 1\nlxc.idmap = u x\n\
        lxc.net.0.type = none\nlxc.namespace.share.uts = other\nlxc.mount.entry = /srv/data data none bind,ro 0 0\n\
        lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp\n\
        lxc.cgroup2.memory.max = 512M\nlxc.cgroup2.cpu.max = 50000 100000\nlxc.cgroup2.pids.max = max\nnonsense\n";
    let disk = Disk::new(
        "lxc",
        &[
            file("lib/lxc/c1/config", json!(text)),
            file(
                "lib/lxc/c2/config",
                json!("lxc.include = /usr/share/lxc/config/common.conf\nlxc.cap.drop = mknod\n"),
            ),
        ],
    );
    let declared = details(&disk.roots(), "c1").unwrap().declared.unwrap();
    assert_eq!(declared.source, DeclaredSource::Lxc);
    let of = |name: &str| declared.namespaces.get(name).unwrap().clone();
    assert_eq!(
        (of("pid"), of("user"), of("net")),
        (NamespaceSource::Own, NamespaceSource::Own, NamespaceSource::Host)
    );
    assert_eq!(of("uts"), NamespaceSource::Joined { target: "other".into() });
    assert_eq!(of("time"), NamespaceSource::Host);
    let capabilities = declared.capabilities.unwrap();
    let dropped = [16, 33, 25].iter().fold(0u64, |mask, number| mask | 1 << number);
    assert_eq!(capabilities.bounding, ((1 << 41) - 1) & !dropped);
    assert_eq!(capabilities.unknown, ["warp"]);
    assert_eq!((declared.uid_map.len(), declared.gid_map.len()), (2, 2));
    assert_eq!(declared.limits.memory_bytes, Some(512 << 20));
    assert_eq!((declared.limits.cpu_quota_us, declared.limits.pids), (Some(50_000), None));
    assert_eq!(declared.mounts[0].destination, "/data");
    assert_eq!(
        declared.seccomp.unwrap().profile_path.as_deref(),
        Some("/usr/share/lxc/config/common.seccomp")
    );
    assert!(declared.no_new_privileges);
    assert_eq!(declared.root_path.as_deref(), Some("/var/lib/lxc/c1/rootfs"));
    // What is included may drop more.
    let declared = details(&disk.roots(), "c2").unwrap().declared.unwrap();
    assert_eq!(declared.capabilities, None);
}
