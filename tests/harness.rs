//! Whether the harness's containers are what they claim and each attack really does its work, judged by /proc and not
//! by the agent. When a live test fails, this one tells whether the agent or the attack is to blame.
//!
//! Run as root, with `--test-threads=1`.

use observer_live::cgroup::{self, Cgroup};
use observer_live::counter::Counter;
use observer_live::lab::Lab;
use observer_live::pty::Terminal;
use observer_live::rootfs::UTIL_LINUX;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{containerd, docker, host, lab, rootfs, sandbox, scratch};
use std::process::Command;

const ATTACKS: &str = env!("CARGO_BIN_EXE_observer-attacks");

fn lab() -> Option<Lab> {
    Lab::enter(ATTACKS)
}

fn target_ns(pid: u32, kind: &str) -> String {
    format!("{kind}:[{}]", host::namespace(pid, kind).expect("the target's namespace"))
}

/// Runs an attack that then shows the namespaces it is in, one per line.
fn shown_after(container: &Container, attack: &str, types: &str) -> Vec<String> {
    let show: Vec<String> = types.split(',').map(|kind| format!("readlink /proc/self/ns/{kind};")).collect();
    let said = container.sh(&format!("observer-attacks {attack} sh -c '{}'", show.join(" ")));
    let output = said.ok();
    assert!(output.starts_with("ok\n"), "{output}");
    output.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn joins_reach_the_targets_namespaces() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let container = lab.container(Spec::privileged("joins"));
    let (pid, types) = (target.pid(), "uts,ipc,net,mnt");
    let expected: Vec<String> = types.split(',').map(|kind| target_ns(pid, kind)).collect();
    for attack in ["setns-each", "setns-pidfd", "setns32"] {
        assert_eq!(shown_after(&container, &format!("{attack} {pid} {types}"), types), expected, "{attack}");
    }
    for nsenter in ["nsenter".to_owned(), format!("{UTIL_LINUX}/nsenter")] {
        let said =
            container.sh(&format!("{nsenter} -t {pid} -m -n -u -i sh -c 'readlink /proc/self/ns/mnt'"));
        assert_eq!(said.ok(), target_ns(pid, "mnt"), "{nsenter}");
    }
}

#[test]
fn a_private_cgroup_namespace_can_be_left() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let container = lab.container(Spec::privileged("cgroupns").cgroup_namespace());
    assert_ne!(host::namespace(container.pid, "cgroup"), host::namespace(target.pid(), "cgroup"));
    let shown = shown_after(&container, &format!("setns-each {} cgroup", target.pid()), "cgroup");
    assert_eq!(shown, [target_ns(target.pid(), "cgroup")]);
}

#[test]
fn a_thread_can_leave_alone() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let container = lab.container(Spec::privileged("thread"));
    container.shell().start(&format!("observer-attacks setns-thread {} mnt,net 2", target.pid()));
    let process = observer_live::wait::until(std::time::Duration::from_secs(5), || {
        let pid = host::descendants(container.pid).into_iter().find(|pid| host::threads(*pid).len() == 2)?;
        let other = host::threads(pid).into_iter().find(|tid| *tid != pid)?;
        let inside = |tid, kind| host::namespace(tid, kind) == host::namespace(target.pid(), kind);
        (inside(other, "net") && inside(other, "mnt") && !inside(pid, "net")).then_some(pid)
    });
    assert!(process.is_some(), "no thread has left its process's namespaces");
    assert!(container.shell().wait(std::time::Duration::from_secs(10)).ok().starts_with("ok tid="));
}

#[test]
fn several_threads_leave_in_turn() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let dir = scratch::subdir("turns");
    let container = lab.container(Spec::privileged("turns").bind(&dir, "/scratch", true));
    std::fs::write(dir.join("turn"), "xxx").expect("give three turns");
    let said = container.sh(&format!("observer-attacks threads-setns 3 /scratch/turn {} net", target.pid()));
    assert_eq!(said.ok().lines().filter(|line| line.starts_with("tid=")).count(), 3);
}

#[test]
fn another_thread_execs() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::privileged("thread-exec"));
    let said = container.sh("sh -c 'echo $$; exec observer-attacks thread-exec sh -c \"echo \\$\\$\"'");
    let lines: Vec<String> = said.ok().lines().map(str::to_owned).collect();
    assert_eq!(lines[1], "ok");
    assert_eq!(lines[0], lines[2], "the thread takes over the leader's id");
}

#[test]
fn new_namespaces_are_made() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("nested").caps(&["CAP_SYS_ADMIN"]));
    for attack in ["unshare uts,net", "unshare32 uts,net", "clone-newns uts,net"] {
        let output =
            container.sh(&format!("observer-attacks {attack} sh -c 'readlink /proc/self/ns/net'")).ok();
        let made = output.lines().find(|line| line.starts_with("net:")).expect("a network namespace");
        assert_ne!(made, target_ns(container.pid, "net"), "{attack}");
    }
    let plain = lab.container(Spec::new("user"));
    let own = target_ns(plain.pid, "user");
    for attack in ["observer-attacks unshare-user", "unshare -Ur", &format!("{UTIL_LINUX}/unshare -Ur")] {
        let output = plain.sh(&format!("{attack} sh -c 'readlink /proc/self/ns/user'")).ok();
        let made = output.lines().find(|line| line.starts_with("user:")).expect("a user namespace");
        assert_ne!(made, own, "{attack}");
    }
    assert_eq!(plain.sh("observer-attacks unshare uts").code, libc::EPERM);
    assert_eq!(plain.sh("observer-attacks unshare32 uts").code, libc::EPERM);
    let (_, quick) =
        lab.run_to_end(&Spec::new("quick").caps(&["CAP_SYS_ADMIN"]).args(&["observer-attacks", "quick"]));
    assert_eq!(String::from_utf8_lossy(&quick.stdout), "ok\n");
}

#[test]
fn refused_joins_are_counted_and_nothing_is_confused() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let container = lab.container(Spec::new("refused").host_pid().caps(&["CAP_SYS_PTRACE"]));
    let said = container.sh(&format!("observer-attacks count-eperm 100 {} net", target.pid()));
    assert_eq!(said.ok(), "ok 100");
    assert_eq!(container.sh("observer-attacks confuse32").ok(), "ok");
}

#[test]
fn clones_are_refused() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("clones"));
    for attack in ["clone-newns uts,net true", "clone-chrooted /tmp user,mnt", "clone32 uts,net"] {
        assert_eq!(container.sh(&format!("observer-attacks {attack}")).code, libc::EPERM, "{attack}");
    }
    let calls = container.sh("observer-attacks clone3-race uts 100").ok();
    let calls: u64 = calls.strip_prefix("ok ").and_then(|n| n.parse().ok()).expect("a count");
    assert!(calls >= 100, "{calls}");
}

/// A number of one of a cgroup's files of events: `NAME NUMBER` lines.
fn counted(controller: &str, path: &str, files: &[&str], name: &str) -> u64 {
    let (dir, _) = cgroup::controlled(controller, path);
    let text =
        files.iter().find_map(|file| std::fs::read_to_string(dir.join(file)).ok()).expect("its events");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a count");
    line.trim().parse().expect("a number")
}

#[test]
fn limits_are_reached() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("limits").memory(32 << 20).pids(50));
    let kills = || {
        let files = ["memory.events", "memory.oom_control"];
        counted("memory", container.cgroup_path(), &files, "oom_kill ")
    };
    assert_eq!(container.sh("observer-attacks hog 8 0").ok(), "ok 8");
    assert_eq!(kills(), 0);
    assert_eq!(container.sh("observer-attacks hog 64 0").code, 128 + libc::SIGKILL);
    assert_eq!(kills(), 1);
    let refused = || counted("pids", container.cgroup_path(), &["pids.events"], "max ");
    for (n, call) in ["clone", "clone3", "fork", "vfork", "clone32"].into_iter().enumerate() {
        assert_eq!(container.sh(&format!("observer-attacks bomb {call} 10")).ok(), "ok 12", "{call}");
        assert_eq!(refused(), 12 * (n as u64 + 1), "{call}");
    }
    assert_eq!(container.sh("observer-attacks nproc 54321").ok(), "ok");
    assert_eq!(refused(), 60);
}

#[test]
fn roots_are_changed() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let volume = scratch::subdir("volume");
    for dir in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("/usr/{dir}"), volume.join(dir)).expect("link");
    }
    let container =
        lab.container(Spec::privileged("roots").bind("/", "/host", false).bind(&volume, "/vol", true));
    let marker = scratch::dir().join("rootfs");
    let seen = format!("sh -c '[ -d {} ] && echo host'", marker.display());
    for attack in
        ["chroot /host", "chroot32 /host", "pivot /host", &format!("chroot /proc/{}/root", target.pid())]
    {
        assert_eq!(container.sh(&format!("observer-attacks {attack} {seen}")).ok(), "ok\nhost", "{attack}");
    }
    for attack in ["chroot /vol", "chroot /tmp"] {
        assert_eq!(container.sh(&format!("observer-attacks {attack}")).ok(), "ok", "{attack}");
    }
    container.sh("mkdir -p /tmp/race/a /tmp/race/b").ok();
    let said = container.sh("cd /tmp/race && observer-attacks chroot-race a b 50").ok();
    let went = said.strip_prefix("ok ").expect("where it went");
    assert!(went.len() == 50 && went.contains('0') && went.contains('1'), "{said}");
}

#[test]
fn cgroups_are_left() {
    let Some(lab) = lab() else { return };
    let outside = |hierarchy: &str| Cgroup::make(hierarchy, &format!("{}/outside", cgroup::home()));
    let (v1, v2) = (outside("pids"), outside(""));
    let container =
        lab.container(Spec::new("cgroups").bind(&v1.dir, "/cg/pids", true).bind(&v2.dir, "/cg/v2", true));
    let inside: Vec<_> = cgroup::of(container.pid);
    assert!(inside.iter().all(|(_, path)| *path == container.cgroup_path()), "{inside:?}");
    for (attack, hierarchy) in [
        ("join-cgroup /cg/pids/cgroup.procs", ":pids:"),
        ("join-cgroup /cg/pids/tasks", ":pids:"),
        ("join-cgroup /cg/v2/cgroup.procs", "0::"),
        ("clone-into-cgroup /cg/v2", "0::"),
    ] {
        let output = container.sh(&format!("observer-attacks {attack} cat /proc/self/cgroup")).ok();
        let line = output.lines().find(|line| line.contains(hierarchy)).expect("the hierarchy's line");
        assert!(line.ends_with("/outside"), "{attack}: {line}");
        let moved = output.lines().filter(|line| line.ends_with("/outside")).count();
        assert_eq!(moved, 1, "{attack} moves in one hierarchy only");
    }
}

#[test]
fn hostile_names_are_really_hostile() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let container = lab.container(Spec::privileged("hostile"));
    assert!(
        container.sh(&format!("observer-attacks hostile-exec {} net", target.pid())).ok().ends_with("ok")
    );
}

#[test]
fn runc_shares_what_it_is_told_to_share() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let same = |pid: u32, kind: &str| host::namespace(pid, kind) == host::namespace(target.pid(), kind);
    let plain = lab.container(Spec::new("plain"));
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        assert!(!same(plain.pid, kind), "{kind}");
    }
    for kind in ["user", "cgroup", "time"] {
        assert!(same(plain.pid, kind), "{kind}");
    }
    let shared = lab.container(Spec::new("shared").host_pid().host_net());
    assert!(same(shared.pid, "pid") && same(shared.pid, "net") && !same(shared.pid, "mnt"));
    let joined = lab.container(Spec::new("joined").join("network", format!("/proc/{}/ns/net", plain.pid)));
    assert_eq!(host::namespace(joined.pid, "net"), host::namespace(plain.pid, "net"));
    let mut private = lab.container(Spec::new("private").private_root());
    assert!(!std::path::Path::new("/run/runc").join(&private.id).exists());
    assert_eq!(private.exec(&["cat", "/etc/os-release"]).status.code(), Some(0));
    let pid = private.exec_detached(&["sleep", "1000"]);
    assert!(host::alive(pid));
    drop(private);
    assert!(!host::alive(pid));
}

#[test]
fn docker_containers() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let target = host::target();
    let plain = docker.start(&[]);
    let expected = format!("/docker/{}", plain.id);
    assert!(cgroup::of(plain.pid).iter().all(|(_, path)| *path == expected), "{:?}", cgroup::of(plain.pid));
    assert_eq!(
        plain.sh("observer-attacks unshare-user").code,
        libc::EPERM,
        "docker's seccomp profile refuses it"
    );
    assert_eq!(plain.exec(&["true"]).status.code(), Some(0));
    let escape = docker.start(&["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"]);
    let said =
        escape.sh(&format!("nsenter -t {} -m -n -u -i sh -c 'readlink /proc/self/ns/net'", target.pid()));
    assert_eq!(said.ok(), target_ns(target.pid(), "net"));
    let joined = docker.start(&[&format!("--network=container:{}", plain.id)]);
    assert_eq!(host::namespace(joined.pid, "net"), host::namespace(plain.pid, "net"));
    assert_eq!(docker.run_to_end(&[], &["true"]).1.status.code(), Some(0));
}

#[test]
fn containerd_containers() {
    let Some(lab) = lab() else { return };
    let Some(containerd) = containerd::get(&lab.attacks) else { return };
    let container = containerd.start("ctr", &[]);
    let expected = format!("/observer-live/{}", container.id);
    assert!(
        cgroup::of(container.pid).iter().all(|(_, path)| *path == expected),
        "{:?}",
        cgroup::of(container.pid)
    );
    assert_eq!(container.sh("echo hello").ok(), "hello");
    assert_eq!(container.exec(&["true"]).status.code(), Some(0));
}

#[test]
fn a_terminal_is_a_terminal() {
    let Some(_lab) = lab() else { return };
    let mut terminal = Terminal::spawn(Command::new("sh").args(["-c", "[ -t 1 ] && printf 'a\\tb\\n'"]));
    terminal.guard.child().wait().expect("wait for the program");
    let shown = observer_live::wait::until(std::time::Duration::from_secs(2), || {
        let bytes = terminal.bytes();
        bytes.ends_with(b"\n").then_some(bytes)
    });
    assert_eq!(shown.as_deref(), Some(&b"a\tb\r\n"[..]));
}

#[test]
fn the_tools_are_in_the_root() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("tools"));
    let common = "--temp-path /tmp --timeout 1 --quiet";
    container.sh(&format!("cd /tmp; stress-ng --fork 1 --unshare 1 {common}")).ok();
    // The exec stressor skips itself as root, and says so only to those who do not ask it to be quiet.
    let nobody = format!("{UTIL_LINUX}/setpriv --reuid=65534 --regid=65534 --clear-groups");
    let said =
        container.sh(&format!("cd /tmp; {nobody} stress-ng --exec 1 --temp-path /tmp --timeout 1 2>&1")).ok();
    assert!(!said.contains("skipping"), "{said}");
    assert!(rootfs::tar(&lab.attacks).is_file());
}

/// bpftrace misses nothing: what we exec ourselves is counted, one by one, on a machine that is otherwise at rest, and
/// never less elsewhere.
#[test]
fn bpftrace_counts() {
    let Some(_lab) = lab() else { return };
    let Some(counter) = Counter::start() else { return };
    let before = counter.fresh();
    for _ in 0..200 {
        rootfs::run(&mut Command::new("true"));
    }
    let after = counter.fresh();
    for kind in ["exec", "fork", "exit"] {
        let counted = after[kind] - before[kind];
        println!("{kind}: {counted}");
        assert!(counted >= 200, "{kind}: {counted}");
    }
}

#[test]
fn sandboxes() {
    let Some(lab) = lab() else { return };
    let inode = |said: &str| said.lines().any(|line| line.starts_with("pid:["));
    let shows = ["readlink", "/proc/self/ns/pid"];
    if lab::installed("bwrap") {
        assert!(inode(&rootfs::run(&mut sandbox::bubblewrap(lab.rootfs(), &shows))));
    }
    if lab::installed("systemd-nspawn") {
        let (mut command, cgroups) = sandbox::nspawn(lab.rootfs(), &shows);
        assert!(inode(&rootfs::run(&mut command)));
        drop(cgroups);
        for name in ["payload", "supervisor"] {
            assert!(
                !cgroup::mount_point("").expect("v2").join(name).exists(),
                "nspawn left {name} in the root"
            );
        }
    }
}
