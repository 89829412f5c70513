//! A small host for tests: `db`, and `web` that shares its network namespace.

use super::*;

pub const DB: &str = "aa11111111111111111111111111111111111111111111111111111111111111";
pub const WEB: &str = "ab22222222222222222222222222222222222222222222222222222222222222";

fn set(mnt: u32, net: u32, pid: u32) -> NamespaceSet {
    [("mnt", mnt), ("net", net), ("pid", pid), ("user", 4), ("uts", mnt + 1000)]
        .into_iter()
        .map(|(name, inode)| (name.to_owned(), inode))
        .collect()
}

pub fn process(pid: u32, ppid: u32, container: Option<&str>, namespaces: NamespaceSet) -> ProcessView {
    ProcessView {
        pid,
        ppid,
        started: "2026-01-02T03:04:05.000000000Z".to_owned(),
        start_ticks: u64::from(pid),
        comm: "sleep".to_owned(),
        exe: Some("/bin/sleep".to_owned()),
        args: vec!["sleep".to_owned(), "60".to_owned()],
        uid: 0,
        gid: 0,
        ns_pids: vec![pid, 1],
        container: container.map(str::to_owned),
        namespaces,
        security: None,
        cgroups: Vec::new(),
        kernel_thread: false,
    }
}

pub fn container(
    id: &str,
    name: &str,
    pid: u32,
    processes: usize,
    namespaces: NamespaceSet,
) -> ContainerView {
    ContainerView {
        id: id.to_owned(),
        name: Some(name.to_owned()),
        image: Some("debian:12".to_owned()),
        runtime: "docker".to_owned(),
        pod: None,
        pid: Some(pid),
        started: Some("2026-01-02T03:04:05.000000000Z".to_owned()),
        age_seconds: Some(3700),
        processes,
        namespaces,
        cgroups: vec![CgroupView {
            hierarchy: 0,
            controllers: vec!["v2".to_owned()],
            id: 77,
            path: format!("/docker/{id}"),
            directory: format!("/sys/fs/cgroup/docker/{id}"),
        }],
        resources: None,
        security: Some(security()),
        details: None,
        mounts: None,
    }
}

pub fn security() -> Security {
    let default = CapSet(0xa804_25fb);
    Security {
        seccomp_mode: Some(2),
        seccomp_filters: Some(1),
        no_new_privs: Some(false),
        capabilities: Some(Capabilities {
            effective: default,
            permitted: default,
            inheritable: CapSet(0),
            bounding: default,
            ambient: CapSet(0),
        }),
        uids: Some([0; 4]),
        apparmor: Some(Label { profile: "docker-default".to_owned(), mode: Some("enforce".to_owned()) }),
        selinux: None,
        root_is_uid: None,
        threads: Some(1),
    }
}

pub fn look() -> Look {
    let (host, db, web) = (set(1, 2, 3), set(11, 12, 13), set(21, 12, 23));
    Look {
        schema: SCHEMA,
        time: "2026-01-02T04:05:45.000000000Z".to_owned(),
        node: "n1".to_owned(),
        source: Source::Scan,
        host: HostView {
            namespaces: host.clone(),
            cpus: 2,
            memory_bytes: 8 << 30,
            lsm: Some(vec!["capability".to_owned(), "apparmor".to_owned()]),
            apparmor: true,
            selinux: false,
            hierarchies: Vec::new(),
            capabilities: Some(CapSet::ALL),
            mounts: Vec::new(),
        },
        containers: vec![container(DB, "db", 100, 2, db.clone()), container(WEB, "web", 200, 1, web.clone())],
        processes: vec![
            process(1, 0, None, host),
            process(100, 1, Some(DB), db.clone()),
            process(101, 100, Some(DB), db),
            process(200, 1, Some(WEB), web),
        ],
        unread: Vec::new(),
    }
}
