//! The cgroup hierarchies as they are mounted here, and cgroups that the tests make in them.

use crate::{lab, scratch};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// (name, mount point) of every mounted hierarchy: the v1 controllers' names, `name=...`, or "" for v2.
pub fn hierarchies() -> Vec<(String, PathBuf)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = left.split(' ').collect();
        let types: Vec<&str> = right.split(' ').collect();
        // Only mounts of a hierarchy's own root; a container's cgroup may be bound elsewhere.
        let (Some(&"/"), Some(mount), Some(&kind), Some(&options)) =
            (fields.get(3), fields.get(4), types.first(), types.get(2))
        else {
            continue;
        };
        let name = match kind {
            "cgroup2" => String::new(),
            "cgroup" => {
                let known = ["rw", "ro", "xattr", "release_agent", "clone_children"];
                let names = options.split(',').filter(|o| !known.iter().any(|k| o.starts_with(k)));
                names.collect::<Vec<_>>().join(",")
            }
            _ => continue,
        };
        if !found.iter().any(|(seen, _)| *seen == name) {
            found.push((name, PathBuf::from(mount)));
        }
    }
    found
}

/// The mount point of one hierarchy; "" is v2.
pub fn mount_point(name: &str) -> Option<PathBuf> {
    hierarchies().into_iter().find(|(hierarchy, _)| hierarchy == name).map(|(_, mount)| mount)
}

/// Whether the pids controller has a v1 hierarchy, the one that tests use. Else it must be one of v2's.
pub fn has_v1() -> bool {
    let v1 = mount_point("pids").is_some();
    if !v1 {
        let v2 = mount_point("").expect("a cgroup hierarchy, of v1 or of v2");
        let controllers = fs::read_to_string(v2.join("cgroup.controllers")).expect("v2's controllers");
        assert!(controllers.split_whitespace().any(|name| name == "pids"), "pids is nowhere: {controllers}");
    }
    v1
}

/// Where a cgroup lies in the hierarchy that has a controller, and that hierarchy's number, 0 for v2.
pub fn controlled(controller: &str, path: &str) -> (PathBuf, u64) {
    let table = fs::read_to_string("/proc/self/cgroup").expect("own cgroups");
    let v1 = table.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (names, _) = rest.split_once(':')?;
        names.split(',').any(|name| name == controller).then(|| number.parse().ok()).flatten()
    });
    let mount = mount_point(if v1.is_some() { controller } else { "" });
    let mount = mount.unwrap_or_else(|| panic!("the hierarchy of {controller} is not mounted"));
    (mount.join(path.trim_start_matches('/')), v1.unwrap_or(0))
}

/// The same, said where there is none.
pub fn needs_v1() -> bool {
    let v1 = has_v1();
    if !v1 {
        lab::skipped("no cgroup v1 hierarchy: cgroup.controllers of v2 has pids");
    }
    v1
}

/// The slice in which the machine wants the tests' cgroups, `$OBSERVER_LIVE_CGROUP_PARENT`: one that systemd, or
/// whoever stands in for it, has laid out. Without one they lie in the hierarchies' roots.
fn slice() -> Option<String> {
    std::env::var("OBSERVER_LIVE_CGROUP_PARENT").ok().filter(|slice| !slice.is_empty())
}

/// The cgroup that holds all of this test process's, as /proc/PID/cgroup shows it.
pub fn home() -> String {
    match slice() {
        Some(slice) => format!("{slice}/{}.slice", scratch::mark()),
        None => format!("/{}", scratch::mark()),
    }
}

/// A container's cgroup in `parent`, named as runc's cgroupfs driver does it, or in a slice as its systemd driver does.
pub fn of_container(parent: &str, id: &str) -> String {
    match slice() {
        Some(_) => format!("{parent}/runc-{id}.scope"),
        None => format!("{parent}/{id}"),
    }
}

/// The cgroups of a process as (hierarchy, path), from /proc/PID/cgroup.
pub fn of(pid: u32) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let parts = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    });
    parts.collect()
}

/// A cgroup made by a test in one hierarchy; removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    /// Where it lies in the file system.
    pub dir: PathBuf,
    /// As /proc/PID/cgroup shows it.
    pub path: String,
}

impl Cgroup {
    /// Makes `path`, which must begin with this test process's [`home`], and its parents.
    pub fn make(hierarchy: &str, path: &str) -> Self {
        assert!(path.starts_with(&format!("{}/", home())), "{path} is not below the test's own");
        let mount = mount_point(hierarchy).unwrap_or_else(|| panic!("no cgroup hierarchy {hierarchy:?}"));
        let dir = mount.join(path.trim_start_matches('/'));
        // Each level apart, so that cpuset's masks, which a v1 cgroup does not inherit by itself, can be set.
        let mut level = mount;
        for name in path.trim_start_matches('/').split('/') {
            let parent = level.clone();
            level.push(name);
            if let Err(error) = fs::create_dir(&level) {
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "mkdir {}: {error}", level.display());
            }
            for mask in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(mask)) {
                    let _ = fs::write(level.join(mask), value.trim());
                }
            }
        }
        Self { dir, path: path.to_owned() }
    }

    /// Moves a whole process in, from outside.
    pub fn adopt(&self, pid: u32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A member may still be on its way out.
        crate::wait::until_true(std::time::Duration::from_secs(2), || match fs::remove_dir(&self.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        });
    }
}

/// The parent cgroup that a runtime makes for its containers and leaves behind, in every hierarchy: removed when the
/// test process ends, where it was not there before.
pub fn forget_parent(name: &str) {
    crate::scratch::forget(hierarchies().into_iter().map(|(_, mount)| mount.join(name)).collect());
}

/// The directories in which the tests' own cgroups lie, in every hierarchy.
pub fn parents() -> Vec<PathBuf> {
    let slice = slice().unwrap_or_default();
    hierarchies().into_iter().map(|(_, mount)| mount.join(slice.trim_start_matches('/'))).collect()
}

/// Removes a tree of empty cgroups that a test process made, in every hierarchy: the one at `name` in [`parents`].
pub fn remove_tree(name: &str) {
    assert!(name.starts_with("observer-test-"), "{name} is not a test's");
    for parent in parents() {
        remove_below(&parent.join(name));
    }
}

fn remove_below(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
