//! The test process's one scratch directory, its exit handlers, and the sweep of what killed runs left.

use crate::cgroup;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

const PREFIX: &str = "observer-live-";

/// The file in the scratch directory that lists what [`forget`] is to remove.
const FORGET: &str = "forget";

type Handler = Box<dyn FnOnce() + Send>;
static HANDLERS: Mutex<Vec<Handler>> = Mutex::new(Vec::new());
static DIR: OnceLock<PathBuf> = OnceLock::new();

/// `observer-test-PID`: the name that marks this process's containers and cgroups.
pub fn mark() -> String {
    format!("observer-test-{}", std::process::id())
}

/// A number that no other caller in this process gets.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The scratch directory; made, and the leftovers of dead runs swept, at the first call.
///
/// It is short on purpose: sockets below it must fit into 107 bytes.
pub fn dir() -> &'static Path {
    DIR.get_or_init(|| {
        sweep();
        let dir = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make the scratch directory");
        // SAFETY: registers a plain function; it runs at exit(), which libtest calls after the last test.
        unsafe { libc::atexit(run_handlers) };
        dir
    })
}

/// A fresh directory below the scratch directory.
pub fn subdir(name: &str) -> PathBuf {
    let path = dir().join(format!("{name}{}", unique()));
    std::fs::create_dir_all(&path).expect("make a scratch directory");
    path
}

/// Runs `handler` when the test process ends, the last one registered first. Statics are never dropped in Rust, so
/// what all tests share is ended here.
pub fn at_exit(handler: impl FnOnce() + Send + 'static) {
    dir();
    HANDLERS.lock().expect("exit handlers").push(Box::new(handler));
}

/// Directories that something makes as a side effect, outside the scratch directory: those that are not there yet are
/// removed, if empty, when the test process ends. They are written down too, for the sweep after a killed run.
pub fn forget(dirs: Vec<PathBuf>) {
    let new: Vec<PathBuf> = dirs.into_iter().filter(|dir| !dir.exists()).collect();
    let list: String = new.iter().map(|dir| format!("{}\n", dir.display())).collect();
    let mut file =
        File::options().create(true).append(true).open(dir().join(FORGET)).expect("the list to forget");
    file.write_all(list.as_bytes()).expect("write the list to forget");
    at_exit(move || forget_now(&new));
}

fn forget_now(dirs: &[PathBuf]) {
    for dir in dirs {
        // Never recursive: what somebody else has put in there keeps it alive.
        let _ = std::fs::remove_dir(dir);
    }
}

extern "C" fn run_handlers() {
    loop {
        let handler = HANDLERS.lock().ok().and_then(|mut all| all.pop());
        let Some(handler) = handler else { break };
        // An unwinding panic must not cross into libc, and one failed handler must not stop the others.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(handler));
    }
    cgroup::remove_tree(cgroup::home().rsplit('/').next().unwrap_or_default());
    if let Some(dir) = DIR.get() {
        remove(dir);
    }
}

/// Removes a scratch directory, but never through a mount: a bind of the host's root below it would be emptied.
pub fn remove(dir: &Path) {
    for _ in 0..3 {
        for mount in mounts_below(dir).iter().rev() {
            let Ok(path) = std::ffi::CString::new(mount.as_os_str().as_encoded_bytes()) else { continue };
            // SAFETY: a NUL-terminated path of a mount below our own scratch directory.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
    let left = mounts_below(dir);
    if !left.is_empty() {
        eprintln!("still mounted below {}, left in place: {left:?}", dir.display());
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", dir.display());
    }
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let mount_points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    mount_points.filter(|path| path.starts_with(dir)).collect()
}

/// What test processes that were killed left: containers of the default runc root, cgroups, directories.
/// A pid that runs again is left alone, whoever it is now.
fn sweep() {
    let dead = |name: &str, prefix: &str| {
        let pid = name.strip_prefix(prefix)?.split(['-', '.']).next()?.parse::<u32>().ok()?;
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
    };
    for name in names("/run/runc") {
        if dead(&name, "observer-test-").is_some() {
            let _ = Command::new("runc").args(["delete", "-f", &name]).output();
        }
    }
    for parent in cgroup::parents() {
        for name in names(&parent) {
            if dead(&name, "observer-test-").is_some() {
                cgroup::remove_tree(&name);
            }
        }
    }
    let temp = std::env::temp_dir();
    for name in names(&temp) {
        if dead(&name, PREFIX).is_some() {
            let dir = temp.join(name);
            let list = std::fs::read_to_string(dir.join(FORGET)).unwrap_or_default();
            forget_now(&list.lines().map(PathBuf::from).collect::<Vec<_>>());
            remove(&dir);
        }
    }
}

fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
