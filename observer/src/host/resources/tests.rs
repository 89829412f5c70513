//! Trees of v1, v2 and hybrid hosts in a directory, and what is read of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use super::*;

/// A cgroup tree; removed when dropped.
struct Host {
    root: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl Host {
    /// Hierarchies as (id, controllers, directory).
    fn new(hierarchies: &[(u32, &str, &str)]) -> Host {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("observer-resources-{}-{number}", std::process::id()));
        let hierarchies = hierarchies.iter().map(|(id, controllers, dir)| Hierarchy {
            id: *id,
            controllers: controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect(),
            mount: root.join(dir),
        });
        Host { hierarchies: hierarchies.collect(), root }
    }

    /// Writes files below a directory, as (name, content).
    fn write(&self, dir: &str, files: &[(&str, &str)]) {
        let dir = self.root.join(dir);
        fs::create_dir_all(&dir).expect("make a cgroup");
        for (name, content) in files {
            fs::write(dir.join(name), content).expect("write a file");
        }
    }

    fn read(&self, cgroups: &[(u32, &str)]) -> (Value, Vec<Unread>) {
        let cgroups: Vec<_> = cgroups.iter().map(|(id, path)| (*id, (*path).to_owned())).collect();
        let (resources, unread) = read(&self.hierarchies, &cgroups);
        (serde_json::to_value(resources).expect("JSON"), unread)
    }

    /// Paths below the root of what could not be read, and why.
    fn complaints(&self, unread: &[Unread]) -> Vec<String> {
        let root = format!("{}/", self.root.display());
        unread.iter().map(|it| format!("{}: {}", it.what.replace(&root, ""), it.why)).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// As one line of /proc/PID/cgroup has it on a v1 host.
const V1: &[(u32, &str, &str)] = &[
    (7, "blkio", "blkio"),
    (4, "memory", "memory"),
    (2, "cpu,cpuacct", "cpu"),
    (3, "cpuset", "cpuset"),
    (8, "pids", "pids"),
    (6, "hugetlb", "hugetlb"),
    (9, "name=systemd", "systemd"),
];

const UNLIMITED: &str = "9223372036854771712\n";

fn on_v1(path: &str) -> Vec<(u32, &str)> {
    V1.iter().map(|(id, ..)| (*id, path)).collect()
}

fn v1_host() -> Host {
    let host = Host::new(V1);
    host.write(
        "memory/docker/abc",
        &[
            ("memory.usage_in_bytes", "5000000\n"),
            ("memory.limit_in_bytes", "7999488\n"),
            ("memory.max_usage_in_bytes", "6000000\n"),
            ("memory.soft_limit_in_bytes", UNLIMITED),
            ("memory.memsw.limit_in_bytes", "15998976\n"),
            ("memory.failcnt", "17\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            (
                "memory.stat",
                "cache 1\nrss 2\nhierarchical_memory_limit 7999488\nhierarchical_memsw_limit 15998976\n\
                 total_cache 3000000\ntotal_swap 4096\ntotal_inactive_file 1000000\ntotal_active_file 2000000\n",
            ),
        ],
    );
    host.write("memory/docker", &[("memory.limit_in_bytes", UNLIMITED)]);
    host.write(
        "cpu/docker/abc",
        &[
            ("cpu.cfs_quota_us", "50000\n"),
            ("cpu.cfs_period_us", "100000\n"),
            ("cpu.shares", "512\n"),
            (
                "cpu.stat",
                "nr_periods 100\nnr_throttled 7\nthrottled_time 1234567\nnr_bursts 0\nburst_time 0\n",
            ),
            ("cpuacct.usage", "9876543210\n"),
            ("cpuacct.stat", "user 500\nsystem 250\n"),
        ],
    );
    host.write(
        "pids/docker/abc",
        &[("pids.current", "3\n"), ("pids.max", "100\n"), ("pids.events", "max 4\n")],
    );
    host.write("pids/docker", &[("pids.max", "50\n")]);
    host.write(
        "blkio/docker/abc",
        &[
            (
                "blkio.throttle.io_service_bytes_recursive",
                "8:0 Read 4096\n8:0 Write 8192\n8:0 Total 12288\nTotal 12288\n",
            ),
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n"),
            ("blkio.throttle.read_bps_device", "8:0 1048576\n"),
            ("blkio.throttle.write_bps_device", ""),
            ("blkio.throttle.read_iops_device", ""),
            ("blkio.throttle.write_iops_device", "8:0 50\n"),
        ],
    );
    host.write(
        "cpuset/docker/abc",
        &[
            ("cpuset.cpus", "0-1\n"),
            ("cpuset.mems", "0\n"),
            ("cpuset.effective_cpus", "0-1\n"),
            ("cpuset.effective_mems", "0\n"),
        ],
    );
    host.write(
        "hugetlb/docker/abc",
        &[
            ("hugetlb.2MB.usage_in_bytes", "4194304\n"),
            ("hugetlb.2MB.limit_in_bytes", "9223372036852678656\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
            ("hugetlb.1GB.usage_in_bytes", "0\n"),
            ("hugetlb.1GB.limit_in_bytes", "1073741824\n"),
        ],
    );
    host
}

#[test]
fn v1_all_of_it() {
    let host = v1_host();
    let (got, unread) = host.read(&on_v1("/docker/abc"));
    assert_eq!(host.complaints(&unread), [""; 0]);
    assert_eq!(
        got,
        json!({
            "memory": {
                "usage_bytes": 5_000_000, "working_set_bytes": 4_000_000, "limit_bytes": 7_999_488,
                "effective_limit": { "bytes": 7_999_488, "path": "/docker/abc", "hierarchy": 4 },
                "swap_usage_bytes": 4096, "swap_limit_bytes": 7_999_488,
                "memory_and_swap_limit_bytes": 15_998_976, "peak_bytes": 6_000_000,
                "file_bytes": 3_000_000, "inactive_file_bytes": 1_000_000,
                "events": { "oom_kill": 2 }, "failcnt": 17
            },
            "cpu": {
                "usage_us": 9_876_543, "user_us": 5_000_000, "system_us": 2_500_000, "quota_us": 50_000,
                "period_us": 100_000, "shares": 512, "nr_periods": 100, "nr_throttled": 7, "throttled_us": 1234
            },
            "pids": {
                "current": 3, "max": 100, "events_max": 4,
                "effective_max": { "max": 50, "path": "/docker", "hierarchy": 8 },
                "above": { "max": 50, "path": "/docker", "hierarchy": 8 }
            },
            "io": {
                "read_bytes": 4096, "written_bytes": 8192, "reads": 1, "writes": 2,
                "limits": [{ "device": "8:0", "read_bytes_per_second": 1_048_576, "writes_per_second": 50 }]
            },
            "cpuset": { "cpus": "0-1", "mems": "0", "effective_cpus": "0-1", "effective_mems": "0" },
            "hugetlb": [
                { "page_size_bytes": 2_097_152, "usage_bytes": 4_194_304 },
                { "page_size_bytes": 1_073_741_824, "usage_bytes": 0, "limit_bytes": 1_073_741_824 }
            ]
        })
    );
}

/// What binds is asked of the kernel, and where it stands is looked for.
#[test]
fn v1_limits_above_bind_where_the_kernel_says_so() {
    let own = |limit: &str, hierarchical: &str| {
        let host = v1_host();
        let stat = format!("total_inactive_file 0\n{hierarchical}");
        host.write("memory/docker/abc", &[("memory.limit_in_bytes", limit), ("memory.stat", &stat)]);
        host.write("memory/docker", &[("memory.limit_in_bytes", "4096000\n")]);
        let (got, unread) = host.read(&on_v1("/docker/abc"));
        assert_eq!(host.complaints(&unread), [""; 0]);
        got.pointer("/memory/effective_limit").map(|it| (it["bytes"].clone(), it["path"].clone()))
    };
    let at = |bytes: u64, path: &str| Some((json!(bytes), json!(path)));
    assert_eq!(own(UNLIMITED, "hierarchical_memory_limit 4096000\n"), at(4_096_000, "/docker"));
    assert_eq!(own("8192000\n", "hierarchical_memory_limit 4096000\n"), at(4_096_000, "/docker"));
    assert_eq!(own("4096\n", "hierarchical_memory_limit 4096\n"), at(4096, "/docker/abc"));
    // use_hierarchy is off (before 5.11): what stands above does not bind.
    assert_eq!(own("8192000\n", "hierarchical_memory_limit 8192000\n"), at(8_192_000, "/docker/abc"));
    assert_eq!(own(UNLIMITED, "hierarchical_memory_limit 9223372036854771712\n"), None);
    // The kernel does not say.
    assert_eq!(own("8192000\n", ""), at(4_096_000, "/docker"));
}

const V2: &[(u32, &str, &str)] = &[(0, "", "cg")];
const V2_PATH: &str = "/kubepods.slice/pod 1.slice/cri-containerd-ab\\x2dc.scope";

fn v2_host() -> Host {
    let host = Host::new(V2);
    host.write("cg", &[("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")]);
    let psi =
        "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    host.write(
        &format!("cg{V2_PATH}"),
        &[
            ("memory.current", "5000000\n"),
            ("memory.max", "max\n"),
            ("memory.high", "6000000\n"),
            ("memory.low", "0\n"),
            ("memory.peak", "5500000\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "0\n"),
            ("memory.events", "low 0\nhigh 3\nmax 1\noom 1\noom_kill 1\noom_group_kill 0\n"),
            ("memory.stat", "anon 1\nfile 2000000\nkernel 3\ninactive_file 6000000\nactive_file 1\n"),
            ("cpu.max", "max 100000\n"),
            ("cpu.weight", "79\n"),
            (
                "cpu.stat",
                "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnice_usec 0\nnr_periods 0\nnr_throttled 0\n\
                 throttled_usec 0\nnr_bursts 0\nburst_usec 0\n",
            ),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("pids.events", "max 0\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("io.max", "8:0 rbps=max wbps=1000 riops=max wiops=max\n"),
            ("cpuset.cpus", "\n"),
            ("cpuset.mems", "\n"),
            ("cpuset.cpus.effective", "0-3\n"),
            ("cpuset.mems.effective", "0\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("cpu.pressure", psi),
            ("memory.pressure", psi),
            ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
        ],
    );
    host.write("cg/kubepods.slice", &[("memory.max", "4000000\n"), ("pids.max", "max\n")]);
    host.write("cg/kubepods.slice/pod 1.slice", &[("memory.max", "4500000\n"), ("pids.max", "33\n")]);
    host
}

#[test]
fn v2_all_of_it() {
    let host = v2_host();
    let (got, unread) = host.read(&[(0, V2_PATH)]);
    assert_eq!(host.complaints(&unread), [""; 0]);
    let none = json!({ "avg10_percent": 0.0, "avg60_percent": 0.0, "avg300_percent": 0.0, "total_us": 0 });
    let stall = json!({
        "some": { "avg10_percent": 1.5, "avg60_percent": 0.25, "avg300_percent": 0.0, "total_us": 1234 },
        "full": none
    });
    let mut one_line = none.clone();
    one_line["total_us"] = json!(5);
    assert_eq!(
        got,
        json!({
            "memory": {
                // More inactive pages than usage (the two are not read at one moment): as docker, usage itself.
                "usage_bytes": 5_000_000, "working_set_bytes": 5_000_000,
                "effective_limit": { "bytes": 4_000_000, "path": "/kubepods.slice", "hierarchy": 0 },
                "above": { "limit_bytes": 4_000_000, "path": "/kubepods.slice", "hierarchy": 0 },
                "high_bytes": 6_000_000, "swap_usage_bytes": 0, "swap_limit_bytes": 0, "peak_bytes": 5_500_000,
                "file_bytes": 2_000_000, "inactive_file_bytes": 6_000_000,
                "events": { "low": 0, "high": 3, "max": 1, "oom": 1, "oom_kill": 1, "oom_group_kill": 0 }
            },
            "cpu": {
                "usage_us": 10, "user_us": 6, "system_us": 4, "weight": 79, "nr_periods": 0, "nr_throttled": 0,
                "throttled_us": 0
            },
            "pids": {
                "current": 2, "events_max": 0,
                "effective_max": { "max": 33, "path": "/kubepods.slice/pod 1.slice", "hierarchy": 0 },
                "above": { "max": 33, "path": "/kubepods.slice/pod 1.slice", "hierarchy": 0 }
            },
            "io": {
                "read_bytes": 1, "written_bytes": 2, "reads": 3, "writes": 4,
                "limits": [{ "device": "8:0", "written_bytes_per_second": 1000 }]
            },
            "cpuset": { "effective_cpus": "0-3", "effective_mems": "0" },
            "hugetlb": [{ "page_size_bytes": 2_097_152, "usage_bytes": 0 }],
            "pressure": { "cpu": stall, "memory": stall, "io": { "some": one_line } }
        })
    );
}

#[test]
fn v2_quota_and_own_limits() {
    let host = v2_host();
    let dir = format!("cg{V2_PATH}");
    host.write(&dir, &[("cpu.max", "150000 100000\n"), ("memory.max", "1000\n"), ("pids.max", "33\n")]);
    let (got, _) = host.read(&[(0, V2_PATH)]);
    assert_eq!((&got["cpu"]["quota_us"], &got["cpu"]["period_us"]), (&json!(150_000), &json!(100_000)));
    assert_eq!(got["memory"]["effective_limit"]["path"], json!(V2_PATH));
    // Of equal limits it is the nearest.
    assert_eq!(got["pids"]["effective_max"]["path"], json!(V2_PATH));
}

#[test]
fn hybrid_takes_each_controller_from_the_hierarchy_that_has_it() {
    let mut layout: Vec<_> =
        V1.iter().filter(|(_, controllers, _)| *controllers != "pids").copied().collect();
    layout.push((0, "", "unified"));
    let host = Host::new(&layout);
    host.write("unified", &[("cgroup.controllers", "pids\n")]);
    host.write(
        "unified/x",
        &[
            ("cpu.stat", "usage_usec 1\nuser_usec 1\nsystem_usec 1\n"),
            ("cpu.pressure", "some avg10=9.00 avg60=0.00 avg300=0.00 total=0\n"),
            ("pids.current", "5\n"),
            ("pids.max", "6\n"),
            // Left over from something; the controller is v1's.
            ("memory.current", "666\n"),
        ],
    );
    host.write("memory/y", &[("memory.usage_in_bytes", "77\n"), ("memory.limit_in_bytes", UNLIMITED)]);
    host.write(
        "cpu/y",
        &[("cpuacct.usage", "5000\n"), ("cpu.cfs_quota_us", "-1\n"), ("cpu.stat", "nr_periods 0\n")],
    );
    let (got, unread) = host.read(&[(0, "/x"), (4, "/y"), (2, "/y"), (3, "/"), (7, "/gone")]);
    assert_eq!(host.complaints(&unread), [""; 0]);
    assert_eq!(
        got,
        json!({
            "memory": { "usage_bytes": 77 },
            "cpu": { "usage_us": 5, "nr_periods": 0 },
            "pids": { "current": 5, "max": 6, "effective_max": { "max": 6, "path": "/x", "hierarchy": 0 } },
            "pressure": { "cpu": { "some":
                { "avg10_percent": 9.0, "avg60_percent": 0.0, "avg300_percent": 0.0, "total_us": 0 } } }
        })
    );
    // Without a cgroup of its own in v1's, usage is what v2 counts by itself.
    let (got, _) = host.read(&[(0, "/x"), (2, "/")]);
    assert_eq!(got["cpu"], json!({ "usage_us": 1, "user_us": 1, "system_us": 1 }));
    assert_eq!(got.get("memory"), None);
}

#[test]
fn what_is_gone_or_nobodys_own_is_no_error() {
    let hosts =
        [(v1_host(), on_v1("/docker/gone")), (v2_host(), vec![(0, "/gone")]), (v1_host(), on_v1("/"))];
    for (host, cgroups) in hosts {
        assert_eq!(host.read(&cgroups), (json!({}), vec![]));
    }
    assert_eq!(v2_host().read(&[(0, "/")]), (json!({}), vec![]));
    assert_eq!(v2_host().read(&[]), (json!({}), vec![]));
    assert_eq!(v2_host().read(&[(5, V2_PATH)]), (json!({}), vec![]));
    assert_eq!(Host::new(&[]).read(&[(0, V2_PATH)]), (json!({}), vec![]));
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_there() {
    let host = v1_host();
    let long = format!("7{}\n", "0".repeat(400));
    host.write(
        "memory/docker/abc",
        &[
            ("memory.usage_in_bytes", "-5\n"),
            ("memory.limit_in_bytes", "lots\n"),
            ("memory.failcnt", &long),
            ("memory.stat", "total_cache 12\ntotal_swap x\ntotal_inactive_file 7\n"),
        ],
    );
    host.write("pids/docker/abc", &[("pids.current", "\n"), ("pids.max", "-1\n")]);
    host.write("cpu/docker/abc", &[("cpu.cfs_quota_us", "-2\n"), ("cpuacct.usage", "1e9\n")]);
    fs::write(host.root.join("cpuset/docker/abc/cpuset.cpus"), b"\xff\xfe\n").expect("write");
    host.write("cpuset/docker/abc", &[("cpuset.mems", "\x1b[2J\n")]);
    host.write("blkio/docker/abc", &[("blkio.throttle.read_bps_device", "8:0\n")]);
    fs::write(host.root.join("hugetlb/docker/abc/hugetlb.1GB.limit_in_bytes"), vec![b'1'; 1 << 20])
        .expect("write");
    let (got, unread) = host.read(&on_v1("/docker/abc"));
    let mut complaints = host.complaints(&unread);
    complaints.sort();
    assert_eq!(
        complaints,
        [
            "blkio/docker/abc/blkio.throttle.read_bps_device: unknown format",
            "cpu/docker/abc/cpu.cfs_quota_us: not a number",
            "cpu/docker/abc/cpuacct.usage: not a number",
            "cpuset/docker/abc/cpuset.cpus: not text",
            "cpuset/docker/abc/cpuset.mems: unknown format",
            "hugetlb/docker/abc/hugetlb.1GB.limit_in_bytes: longer than 131072 bytes",
            "memory/docker/abc/memory.failcnt: not a number",
            "memory/docker/abc/memory.limit_in_bytes: not a number",
            "memory/docker/abc/memory.stat: not a number",
            "memory/docker/abc/memory.usage_in_bytes: not a number",
            "pids/docker/abc/pids.current: not a number",
            "pids/docker/abc/pids.max: not a number",
        ]
    );
    assert_eq!(got["memory"]["file_bytes"], json!(12));
    assert_eq!(got["memory"]["inactive_file_bytes"], json!(7));
    assert_eq!(got["memory"]["events"]["oom_kill"], json!(2));
    assert_eq!(got["memory"].get("usage_bytes"), None);
    assert_eq!(got["pids"]["effective_max"]["max"], json!(50));
    assert_eq!(got["cpu"]["user_us"], json!(5_000_000));
    assert_eq!(got["cpuset"], json!({ "effective_cpus": "0-1", "effective_mems": "0" }));
    assert_eq!(got["io"]["limits"], json!([{ "device": "8:0", "writes_per_second": 50 }]));
    assert_eq!(got["hugetlb"][1], json!({ "page_size_bytes": 1_073_741_824, "usage_bytes": 0 }));
}

#[test]
fn a_refused_file_is_said() {
    let host = v2_host();
    let file = host.root.join(format!("cg{V2_PATH}/pids.current"));
    // Root reads everything, so the refusal is one that root gets as well: a directory in the file's place.
    fs::remove_file(&file).expect("remove");
    fs::create_dir(&file).expect("make");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("close");
    let (got, unread) = host.read(&[(0, V2_PATH)]);
    assert_eq!(unread.len(), 1, "{unread:?}");
    assert!(unread.iter().all(|it| it.what.ends_with("/pids.current") && !it.why.is_empty()), "{unread:?}");
    assert_eq!(
        got["pids"],
        json!({ "events_max": 0,
        "effective_max": { "max": 33, "path": "/kubepods.slice/pod 1.slice", "hierarchy": 0 },
        "above": { "max": 33, "path": "/kubepods.slice/pod 1.slice", "hierarchy": 0 } })
    );
}

#[test]
fn hostile_paths_are_refused() {
    let host = v2_host();
    host.write("outside", &[("memory.current", "1\n")]);
    for path in ["/../outside", "/kubepods.slice/../../outside", "/..", "/a\0b"] {
        let (got, unread) = host.read(&[(0, path)]);
        assert_eq!((got, unread.len()), (json!({}), 1), "{path:?}");
    }
    let (got, unread) = host.read(&[(0, "/a\u{fffd}b")]);
    assert_eq!(got, json!({}));
    assert!(unread.iter().any(|it| it.why.contains("not text")), "{unread:?}");
    assert_eq!(host.read(&[(0, &"/x".repeat(3000))]), (json!({}), vec![]));
    assert_eq!(host.read(&[(0, &format!("/{}", "x".repeat(300)))]), (json!({}), vec![]));
}

/// A limit that several share may be met before any of their own, which are tighter.
#[test]
fn the_fullest_above_need_not_be_the_tightest() {
    let host = v2_host();
    let pod = [
        ("memory.max", "9000000\n"),
        ("memory.current", "8999000\n"),
        ("memory.events.local", "low 0\nmax 12\n"),
        ("pids.max", "33\n"),
        ("pids.current", "32\n"),
    ];
    host.write("cg/kubepods.slice/pod 1.slice", &pod);
    host.write(
        "cg/kubepods.slice",
        &[("memory.current", "100\n"), ("pids.max", "20\n"), ("pids.current", "1\n")],
    );
    let (got, unread) = host.read(&[(0, V2_PATH)]);
    assert_eq!(host.complaints(&unread), [""; 0]);
    let pod = "/kubepods.slice/pod 1.slice";
    assert_eq!(got["memory"]["effective_limit"]["path"], json!("/kubepods.slice"));
    assert_eq!(
        got["memory"]["above"],
        json!({ "usage_bytes": 8_999_000, "limit_bytes": 9_000_000, "hits": 12, "path": pod, "hierarchy": 0 })
    );
    assert_eq!(got["pids"]["effective_max"]["path"], json!("/kubepods.slice"));
    assert_eq!(got["pids"]["above"], json!({ "current": 32, "max": 33, "path": pod, "hierarchy": 0 }));
}

#[test]
fn limits_above_are_read_once_in_a_round() {
    let host = v2_host();
    let mut reader = Reader::new(&host.hierarchies);
    let cgroups = [(0, V2_PATH.to_owned())];
    let mut tightest = |new_round: bool| {
        if new_round {
            reader.new_round();
        }
        let (got, _) = reader.read(&cgroups, Parts::USAGE);
        got.memory.and_then(|memory| memory.effective_limit).map(|limit| limit.bytes)
    };
    assert_eq!(tightest(true), Some(4_000_000));
    host.write("cg/kubepods.slice", &[("memory.max", "5\n")]);
    assert_eq!(tightest(false), Some(4_000_000));
    assert_eq!(tightest(true), Some(5));
}

#[test]
fn only_the_parts_asked_for() {
    let host = v1_host();
    let mut reader = Reader::new(&host.hierarchies);
    let cgroups: Vec<_> = on_v1("/docker/abc").into_iter().map(|(id, path)| (id, path.to_owned())).collect();
    let (got, _) = reader.read(&cgroups, Parts::LIST);
    assert!(got.io.is_none() && got.cpuset.is_none() && got.hugetlb.is_empty() && got.pressure.is_none());
    let (memory, cpu) = (got.memory.expect("memory"), got.cpu.expect("cpu"));
    assert!(memory.peak_bytes.is_none() && memory.working_set_bytes == Some(4_000_000));
    assert!(cpu.shares.is_none() && cpu.quota_us == Some(50_000) && got.pids.is_some());
}

#[test]
fn files_that_stay_open_say_what_is_in_them_now() {
    let host = v2_host();
    let mut reader = Reader::new(&host.hierarchies).keep_open(10);
    let cgroups = [(0, V2_PATH.to_owned())];
    for usage in ["1\n", "20\n", "3\n"] {
        host.write(&format!("cg{V2_PATH}"), &[("memory.current", usage), ("pids.current", usage)]);
        for _ in 0..2 {
            reader.new_round();
            let (got, unread) = reader.read(&cgroups, Parts::USAGE);
            let expected = usage.trim().parse().ok();
            assert_eq!(got.memory.and_then(|memory| memory.usage_bytes), expected);
            assert_eq!(got.pids.and_then(|pids| pids.current), expected);
            assert_eq!(unread, []);
        }
    }
}
