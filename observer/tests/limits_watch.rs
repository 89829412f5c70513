//! The watcher of containers' resources, on cgroups of its own making. Needs root, as the agent does.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use observer::{
    host::{self, Hierarchy},
    limits::{LimitWrite, Round, Sample, Target, WatchOptions, watch::Watcher},
    model::ContainerKey,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Not met in a test: what is read is read for another reason.
const NEVER: u64 = 3600;
const SOON: Duration = Duration::from_secs(20);

/// One test at a time: they look at the descriptors of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory in each hierarchy that has memory, pids or cpu.
struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    name: String,
}

impl Cgroups {
    /// `None` where cgroups cannot be made.
    fn new(name: &str) -> Option<Cgroups> {
        let all = host::hierarchies(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("hierarchies");
        let limiting = |hierarchy: &Hierarchy| {
            let in_v2 = fs::read_to_string(hierarchy.mount.join("cgroup.subtree_control"));
            match hierarchy.id {
                0 => in_v2.is_ok_and(|enabled| enabled.contains("memory")),
                _ => ["memory", "pids", "cpu"]
                    .iter()
                    .any(|name| hierarchy.controllers.iter().any(|has| has == name)),
            }
        };
        let hierarchies = all.into_iter().filter(limiting).collect();
        let cgroups = Cgroups { hierarchies, name: format!("observer-watch-{}-{name}", std::process::id()) };
        let made = match cgroups.hierarchies.first() {
            Some(first) => fs::create_dir(first.mount.join(&cgroups.name)),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        };
        if let Err(error) = made {
            let errno = error.raw_os_error();
            assert!(
                matches!(errno, Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOENT)),
                "{error}"
            );
            use io::Write as _;
            let _ = writeln!(io::stderr(), "SKIPPED: no cgroups can be made here ({error})");
            return None;
        }
        cgroups.each("", |dir| fs::create_dir_all(dir).expect("make a cgroup"));
        // On v2, children have the controllers that their parent hands on.
        if cgroups.hierarchies[0].id == 0 {
            fs::write(cgroups.dir("memory", "").join("cgroup.subtree_control"), "+memory +pids +cpu")
                .expect("hand controllers on");
        }
        Some(cgroups)
    }

    fn each(&self, child: &str, mut each: impl FnMut(&Path)) {
        self.hierarchies.iter().for_each(|hierarchy| each(&hierarchy.mount.join(&self.name).join(child)));
    }

    fn make(&self, child: &str) {
        self.each(child, |dir| fs::create_dir(dir).expect("make a cgroup"));
    }

    fn remove(&self, child: &str) {
        self.each(child, |dir| fs::remove_dir(dir).expect("remove a cgroup"));
    }

    fn target(&self, key: u64, child: &str) -> Target {
        let path = format!("/{}/{child}", self.name);
        let cgroups = self.hierarchies.iter().map(|hierarchy| (hierarchy.id, path.clone())).collect();
        Target { container: ContainerKey(key), cgroups }
    }

    fn has(&self, controller: &str) -> &Hierarchy {
        let v1 = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|has| has == controller);
        self.hierarchies.iter().find(v1).unwrap_or(&self.hierarchies[0])
    }

    fn dir(&self, controller: &str, child: &str) -> PathBuf {
        self.has(controller).mount.join(&self.name).join(child)
    }

    fn is_v2(&self) -> bool {
        self.hierarchies[0].id == 0
    }

    fn memory_limit(&self) -> &'static str {
        if self.is_v2() { "memory.max" } else { "memory.limit_in_bytes" }
    }

    fn start(&self, poll_seconds: u64) -> Watcher {
        let options = WatchOptions { poll_seconds, memory_near_percent: 80 };
        let all = host::hierarchies(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("hierarchies");
        Watcher::start(all, options).expect("a watcher")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.each("", |dir| {
            let children = fs::read_dir(dir).into_iter().flatten().flatten();
            let dirs = children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
            for child in dirs.map(|child| child.path()).chain([dir.to_owned()]) {
                // Tasks that were killed may still be there for a moment.
                let until = Instant::now() + SOON;
                while fs::remove_dir(&child).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
                    && Instant::now() < until
                {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
    }
}

/// Takes rounds, each when the descriptor says that it is there, until one is as wanted.
fn take_until(watcher: &Watcher, mut wanted: impl FnMut(&Round) -> bool) -> Round {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        let mut ready = libc::pollfd { fd: watcher.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid structure that outlives the call.
        if unsafe { libc::poll(&raw mut ready, 1, 1000) } != 1 {
            continue;
        }
        if let Some(round) = watcher.take()
            && wanted(&round)
        {
            return round;
        }
    }
    panic!("waited in vain");
}

fn sample(round: &Round, key: u64) -> Option<&Sample> {
    round.samples.iter().find(|sample| sample.container == ContainerKey(key))
}

/// Writes as somebody else; its pid.
fn write_as_another(file: &Path, text: &str) -> u32 {
    let script = format!("echo {text} > {}", file.display());
    let mut child = Command::new("sh").args(["-c", &script]).spawn().expect("sh");
    assert!(child.wait().expect("sh").success(), "{script}");
    child.id()
}

/// Runs in a cgroup, whatever becomes of it.
fn run_in(cgroup: &Path, command: &str) {
    let script = format!("echo $$ > {}/cgroup.procs && exec {command}", cgroup.display());
    let mut child = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().expect("sh");
    child.wait().expect("sh");
}

/// What this process has open, and what hangs on that: inotify watches, epoll interests, fanotify marks.
fn holdings() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").expect("descriptors").flatten() {
        *found.entry("open".to_owned()).or_default() += 1;
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        for line in text.lines() {
            for kind in ["inotify wd", "tfd", "fanotify ino"] {
                if line.starts_with(kind) {
                    *found.entry(kind.to_owned()).or_default() += 1;
                }
            }
        }
    }
    found
}

fn threads_of_watchers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("threads").flatten();
    tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == "limits"))
        .count()
}

fn wait_for(what: &str, mut until: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !until() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// In a thread that may not have fanotify on a whole hierarchy.
fn without_privilege(test: impl FnOnce() + Send + 'static) {
    let confined = thread::spawn(move || {
        let mut mine = capabilities(None).expect("capabilities");
        mine.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, mine).expect("fewer capabilities");
        test();
    });
    if let Err(panic) = confined.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A write to a container's limit, and one to a limit above it.
fn writes_are_told(name: &str, knows_writers: impl Fn(&Watcher) -> bool) {
    let Some(cgroups) = Cgroups::new(name) else { return };
    cgroups.make("c");
    let watcher = cgroups.start(NEVER);
    watcher.watch(vec![cgroups.target(7, "c")]);
    let first = take_until(&watcher, |_| true);
    let read = sample(&first, 7).expect("a new target is read at once");
    assert!(read.whole && read.time_ns > 0 && first.writes.is_empty(), "{first:?}");
    assert_eq!(read.resources.pids.as_ref().expect("pids").max, None);
    assert!(watcher.take().is_none());

    let knows = knows_writers(&watcher);
    let pids_max = cgroups.dir("pids", "c").join("pids.max");
    let pid = write_as_another(&pids_max, "77");
    // Not a limit: nobody is told.
    run_in(&cgroups.dir("pids", "c"), "true");
    let told = take_until(&watcher, |round| !round.writes.is_empty());
    let expected = LimitWrite {
        time_ns: told.writes[0].time_ns,
        pid: knows.then_some(pid),
        hierarchy: cgroups.has("pids").id,
        path: format!("/{}/c", cgroups.name),
        file: "pids.max".to_owned(),
    };
    assert_eq!(told.writes, [expected]);
    let read = sample(&told, 7).expect("the sample comes with the write");
    assert!(read.whole && read.time_ns >= told.writes[0].time_ns, "{read:?}");
    assert_eq!(read.resources.pids.as_ref().expect("pids").max, Some(77));

    let file = cgroups.memory_limit();
    let pid = write_as_another(&cgroups.dir("memory", "").join(file), "64M");
    let told = take_until(&watcher, |round| !round.writes.is_empty());
    let [write] = told.writes.as_slice() else { panic!("{:?}", told.writes) };
    assert_eq!((write.path.as_str(), write.file.as_str()), (&*format!("/{}", cgroups.name), file));
    assert_eq!(write.pid, knows.then_some(pid));
    let memory = sample(&told, 7).expect("a sample").resources.memory.clone().expect("memory");
    let effective = memory.effective_limit.expect("a limit above");
    assert_eq!((effective.bytes, memory.limit_bytes), (64 << 20, None));
    assert_eq!(effective.path, format!("/{}", cgroups.name));
    assert_eq!(watcher.counts(), Default::default());
}

#[test]
fn writes_are_told_with_what_they_did() {
    let _alone = alone();
    writes_are_told("writes", |watcher| {
        // What fanotify needs: kernfs has an id since Linux 6.6.
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let mount = if unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        let id = rustix::fs::statvfs(mount).expect("a cgroup hierarchy").f_fsid;
        assert_eq!(watcher.sees_writers(), id != 0);
        id != 0
    });
}

#[test]
fn writes_are_told_without_fanotify() {
    let _alone = alone();
    without_privilege(|| {
        writes_are_told("inotify", |watcher| {
            assert!(!watcher.sees_writers());
            false
        });
    });
}

#[test]
fn memory_that_comes_near_its_limit_and_past_it_is_read_at_once() {
    let _alone = alone();
    let Some(cgroups) = Cgroups::new("memory") else { return };
    cgroups.make("c");
    let dir = cgroups.dir("memory", "c");
    fs::write(dir.join(cgroups.memory_limit()), "64M").expect("a limit");
    let watcher = cgroups.start(NEVER);
    watcher.watch(vec![cgroups.target(1, "c")]);
    take_until(&watcher, |round| sample(round, 1).is_some());
    if !cgroups.is_v2() {
        run_in(&dir, "dd if=/dev/zero of=/dev/null bs=56M count=1");
        let near = take_until(&watcher, |round| sample(round, 1).is_some());
        assert!(near.writes.is_empty(), "{near:?}");
        let events = sample(&near, 1).and_then(|read| read.resources.memory.clone()?.events).expect("events");
        assert_eq!(events.oom_kill, Some(0));
        // Another limit, another threshold.
        fs::write(dir.join(cgroups.memory_limit()), "32M").expect("a limit");
        take_until(&watcher, |round| !round.writes.is_empty() && sample(round, 1).is_some());
        run_in(&dir, "dd if=/dev/zero of=/dev/null bs=28M count=1");
        take_until(&watcher, |round| sample(round, 1).is_some());
    }
    run_in(&dir, "dd if=/dev/zero of=/dev/null bs=160M count=1");
    take_until(&watcher, |round| {
        let memory = sample(round, 1).and_then(|read| read.resources.memory.as_ref());
        memory
            .and_then(|memory| memory.events.as_ref())
            .is_some_and(|events| events.oom_kill.is_some_and(|kills| kills > 0))
    });
}

/// 200 cgroups, ten at a time, half of which are gone before the watcher is told so.
fn come_and_go(name: &str) {
    let Some(cgroups) = Cgroups::new(name) else { return };
    let before = holdings();
    let watcher = cgroups.start(1);
    watcher.watch(Vec::new());
    let mut seen = 0;
    for batch in 0..20u64 {
        let keys: Vec<u64> = (batch * 10..batch * 10 + 10).collect();
        let name = |key: u64| format!("c{key}");
        keys.iter().for_each(|key| cgroups.make(&name(*key)));
        watcher.watch(keys.iter().map(|key| cgroups.target(*key, &name(*key))).collect());
        if batch % 2 == 0 {
            take_until(&watcher, |round| {
                seen += round.samples.len();
                round.samples.iter().any(|sample| sample.container.0 == keys[9])
            });
            let limit = cgroups.dir("memory", &name(keys[3])).join(cgroups.memory_limit());
            fs::write(limit, "32M").expect("a limit");
        }
        keys.iter().for_each(|key| cgroups.remove(&name(*key)));
        if batch % 4 < 2 {
            watcher.watch(Vec::new());
        }
    }
    assert!(seen >= 100, "{seen}");
    watcher.watch(Vec::new());
    let idle = idle(&before);
    // Files are kept open for two polls.
    wait_for("descriptors are left", || holdings() == idle);
    drop(watcher);
    wait_for("the thread goes on", || threads_of_watchers() == 0);
    wait_for("descriptors are left after the end", || holdings() == before);
}

/// What a watcher without targets holds: one was started and has not been told of any.
fn idle(before: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let mut idle = before.clone();
    // Its own two eventfds, an epoll of two, and the kernel's queue.
    *idle.entry("open".to_owned()).or_default() += 4;
    *idle.entry("tfd".to_owned()).or_default() += 2;
    idle
}

#[test]
fn cgroups_come_and_go_and_nothing_is_left() {
    let _alone = alone();
    come_and_go("leaks");
}

#[test]
fn cgroups_come_and_go_and_nothing_is_left_of_inotify_either() {
    let _alone = alone();
    without_privilege(|| come_and_go("watches"));
}
