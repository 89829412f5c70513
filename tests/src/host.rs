//! Processes on the host that the tests start as targets, and reading what /proc says of a process.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The ten names of /proc/PID/ns.
pub const NAMESPACES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

/// The inode of one namespace of a process; `None` when it is gone or may not be read.
pub fn namespace(pid: u32, name: &str) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// The whole tuple of a process.
pub fn namespaces(pid: u32) -> BTreeMap<&'static str, u64> {
    NAMESPACES.into_iter().filter_map(|name| Some((name, namespace(pid, name)?))).collect()
}

/// The ids of a process's threads.
pub fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut ids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// The children of a process (all its threads), as the kernel lists them.
pub fn children(pid: u32) -> Vec<u32> {
    let lists = threads(pid)
        .into_iter()
        .filter_map(|tid| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// All descendants of a process.
pub fn descendants(pid: u32) -> Vec<u32> {
    let direct = children(pid);
    let below: Vec<u32> = direct.iter().flat_map(|child| descendants(*child)).collect();
    direct.into_iter().chain(below).collect()
}

/// How many tasks have been made since the machine's start, threads and the kernel's own among them.
pub fn tasks_made() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let made = stat.lines().find_map(|line| line.strip_prefix("processes ")?.parse().ok());
    made.expect("the line `processes` of /proc/stat")
}

pub fn alive(pid: u32) -> bool {
    // A zombie still has a directory; its state tells.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a signal to one process that the tests started.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: plain integers.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Makes a child end when the thread that starts it does, so that not even a killed test process leaves it.
pub fn die_with_parent(command: &mut Command, signal: i32) -> &mut Command {
    // SAFETY: prctl is async-signal-safe and touches only the new child.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal);
            Ok(())
        })
    }
}

/// Gives a child files of its own in place of the host's: each of `files` is laid over the path of that name in `/etc`, in a mnt
/// namespace that nobody else is in.
pub fn with_own_etc<'a>(command: &'a mut Command, dir: &Path, files: &[(&str, &str)]) -> &'a mut Command {
    let path = |path: PathBuf| CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL");
    let mut mounts = Vec::new();
    for (name, text) in files {
        std::fs::write(dir.join(name), text).expect("a file for a child");
        mounts.push((path(dir.join(name)), path(Path::new("/etc").join(name))));
    }
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: unshare and mount are system calls, with strings that were made before the fork; they touch only the new child's
    // mnt namespace, from which nothing spreads.
    unsafe {
        command.pre_exec(move || {
            let null = std::ptr::null();
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(libc::mount(null, c"/".as_ptr(), null, private, null.cast()))?;
            for (from, to) in &mounts {
                check(libc::mount(from.as_ptr(), to.as_ptr(), null, libc::MS_BIND, null.cast()))?;
            }
            Ok(())
        })
    }
}

/// Starts a process that outlives the test: "die with parent" means the thread that forked, and a test's own thread ends
/// with the test. So it is forked by a thread that stays until the test process ends.
pub fn spawn_lasting(mut command: Command) -> std::io::Result<Child> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(die_with_parent(&mut command, libc::SIGKILL).spawn());
        loop {
            std::thread::park();
        }
    });
    receiver.recv().map_err(std::io::Error::other)?
}

/// A process of ours; killed by its pid and reaped when dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        Ok(Self { child: die_with_parent(command, libc::SIGKILL).spawn()? })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `sleep` in the host's own namespaces: what the escapes of the tests escape to.
pub fn target() -> Guard {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let guard = Guard::spawn(&mut command).expect("start the target process");
    // Only once it has left the fork's copy of us do its names mean `sleep`.
    assert!(
        crate::wait::until_true(std::time::Duration::from_secs(5), || {
            std::fs::read_to_string(format!("/proc/{}/comm", guard.pid())).is_ok_and(|comm| comm == "sleep\n")
        }),
        "the target process did not start"
    );
    guard
}

/// Becomes the reaper of orphans below this process. So the daemonised inits of `runc run -d` stay in our tree:
/// their ancestors show whose they are, and we can reap them.
pub fn become_subreaper() {
    // SAFETY: plain integers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Reaps one orphan that ended up with us, once it has died. Never waits for "any child": that would take the
/// status of somebody else's.
pub fn reap(pid: u32) {
    crate::wait::until_true(std::time::Duration::from_secs(2), || {
        let mut status = 0;
        // SAFETY: a pid and a local.
        unsafe { libc::waitpid(pid as libc::pid_t, &mut status, libc::WNOHANG) != 0 }
    });
}

/// Whether the files of a directory lie in memory alone: tmpfs, ramfs (statfs(2)).
pub fn is_in_memory(dir: &Path) -> bool {
    let path = CString::new(dir.as_os_str().as_bytes()).expect("a path");
    let mut about = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a path that ends with a zero, and room for the answer; all zeros is a valid one.
    let about = unsafe {
        assert_eq!(libc::statfs(path.as_ptr(), about.as_mut_ptr()), 0, "statfs {}", dir.display());
        about.assume_init()
    };
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    [libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&about.f_type)
}
