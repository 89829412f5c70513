//! The cgroup file systems: v1, v2 and hybrid.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{CgroupDir, Hierarchy};

/// Deeper than any real tree; a hostile one ends here.
const MAX_DEPTH: usize = 64;

/// The hierarchies of the agent's own /proc/self/cgroup that are mounted below `root`.
pub fn hierarchies(proc: &Path, root: &Path) -> io::Result<Vec<Hierarchy>> {
    let listed = fs::read_to_string(proc.join("self/cgroup"))?;
    let mounts = fs::read_to_string(proc.join("self/mountinfo"))?;
    let mounts: Vec<_> =
        mounts.lines().filter_map(cgroup_mount).filter(|m| m.path.starts_with(root)).collect();
    Ok(listed
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let id: u32 = parts.next()?.parse().ok()?;
            let controllers: Vec<String> =
                parts.next()?.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
            let mount = mounts.iter().find(|m| match controllers.first() {
                None => m.v2,
                Some(first) => !m.v2 && m.options.iter().any(|option| option == first),
            })?;
            Some(Hierarchy { id, controllers, mount: mount.path.clone() })
        })
        .collect())
}

/// Makes the paths that a process in a cgroup namespace (an agent in a pod) reads in /proc those of the hierarchies'
/// roots, as [`walk`] has them.
pub fn from_the_root(
    proc: &Path,
    hierarchies: &[Hierarchy],
    processes: &mut [super::ProcFacts],
) -> io::Result<()> {
    let mounts = fs::read_to_string(proc.join("self/mountinfo"))?;
    let namespaced: Vec<PathBuf> =
        mounts.lines().filter_map(cgroup_mount).filter(|m| m.namespaced).map(|m| m.path).collect();
    for hierarchy in hierarchies.iter().filter(|it| namespaced.contains(&it.mount)) {
        let Some(root) = namespace_root(proc, hierarchy) else { continue };
        let paths = processes.iter_mut().flat_map(|process| &mut process.cgroups);
        for (_, path) in paths.filter(|(id, _)| *id == hierarchy.id) {
            *path = resolve(&root, path);
        }
    }
    Ok(())
}

/// Where in the hierarchy the namespace's root is: the cgroup that this process is found in, without what /proc shows of
/// its path.
fn namespace_root(proc: &Path, hierarchy: &Hierarchy) -> Option<String> {
    let me = std::process::id().to_string();
    let own = fs::read_to_string(proc.join("self/cgroup")).ok()?;
    let number = hierarchy.id.to_string();
    let shown = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        (parts.next()? == number).then_some(())?;
        parts.nth(1)
    })?;
    let is_mine = |path: &str| {
        let procs =
            fs::read_to_string(hierarchy.mount.join(path.trim_start_matches('/')).join("cgroup.procs"));
        procs.is_ok_and(|procs| procs.lines().any(|pid| pid == me))
    };
    let found = std::iter::once(String::new())
        .chain(walk(hierarchy).into_iter().map(|cgroup| cgroup.path))
        .find(|path| is_mine(path))?;
    Some(found.strip_suffix(shown.trim_end_matches('/'))?.to_owned())
}

/// A path with steps up, from `root` on.
fn resolve(root: &str, path: &str) -> String {
    let mut parts: Vec<&str> = root.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

struct Mount {
    path: PathBuf,
    /// This process is in a cgroup namespace: /proc shows it the paths from its own cgroup on.
    namespaced: bool,
    v2: bool,
    options: Vec<String>,
}

/// One line of mountinfo, if it is a cgroup hierarchy's root.
fn cgroup_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (root, path) = (fields.nth(3)?, fields.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let v2 = match kind {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    // A mount of a part of the tree would give paths that are not the hierarchy's. Seen from inside a cgroup namespace, the
    // root of the whole tree is so many steps up.
    let whole = root.split('/').all(|part| part.is_empty() || part == "..");
    whole.then(|| Mount {
        path: path.into(),
        namespaced: root != "/",
        v2,
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// All cgroups of a hierarchy except its root, parents before children. Directories that vanish meanwhile are
/// left out.
pub fn walk(hierarchy: &Hierarchy) -> Vec<CgroupDir> {
    let mut found = Vec::new();
    let Ok(root) = fs::metadata(&hierarchy.mount) else { return found };
    visit(hierarchy, &hierarchy.mount, "", root.ino(), 0, &mut found);
    found
}

fn visit(hierarchy: &Hierarchy, dir: &Path, path: &str, id: u64, depth: usize, found: &mut Vec<CgroupDir>) {
    if depth == MAX_DEPTH {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        let age = meta.modified().ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
        found.push(CgroupDir {
            hierarchy: hierarchy.id,
            id: meta.ino(),
            parent_id: id,
            path: path.clone(),
            age_ns: age.as_nanos() as u64,
            slot: 0,
        });
        visit(hierarchy, &entry.path(), &path, meta.ino(), depth + 1, found);
    }
}

/// The path of a cgroup by its id, by way of the file handle that kernfs makes of ids (`kernfs_fh_to_dentry`,
/// fs/kernfs/mount.c); where that is not allowed (it needs CAP_DAC_READ_SEARCH), by looking through all of them.
///
/// The event comes before the kernel lets the new directory be found (cgroup_mkdir calls kernfs_activate after its
/// tracepoint), so it is asked for a few times. One that is gone again costs them all.
pub fn path_of(hierarchy: &Hierarchy, id: u64) -> Option<String> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_micros(300);
    let mut opened = open_by_id(&hierarchy.mount, id);
    for _ in 1..TRIES {
        if !opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ESTALE)) {
            break;
        }
        std::thread::sleep(PAUSE);
        opened = open_by_id(&hierarchy.mount, id);
    }
    match opened {
        Ok(directory) => {
            let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
            let relative = path.strip_prefix(&hierarchy.mount).ok()?;
            Some(format!("/{}", relative.display()))
        }
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            walk(hierarchy).into_iter().find(|cgroup| cgroup.id == id).map(|cgroup| cgroup.path)
        }
        Err(_) => None,
    }
}

fn open_by_id(mount: &Path, id: u64) -> io::Result<OwnedFd> {
    /// `struct file_handle` with a kernfs id in it.
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        id: [u8; 8],
    }
    const FILEID_KERNFS: libc::c_int = 0xfe;
    let root = fs::File::open(mount)?;
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    // SAFETY: an open directory of the hierarchy, and a handle that is as long as it says.
    let fd = unsafe {
        libc::open_by_handle_at(
            root.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_by_its_id() {
        let hierarchies =
            hierarchies(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("this machine's hierarchies");
        for hierarchy in hierarchies {
            // Whatever cgroups there are; others may remove them meanwhile.
            for cgroup in walk(&hierarchy).into_iter().take(3) {
                if let Some(path) = path_of(&hierarchy, cgroup.id) {
                    assert_eq!(path, cgroup.path);
                }
            }
            assert_eq!(path_of(&hierarchy, u64::MAX), None);
        }
    }

    /// As `cgroup_path_ns` (kernel/cgroup/cgroup.c) shows them.
    #[test]
    fn paths_seen_in_a_cgroup_namespace_are_resolved() {
        let pod = "/kubepods.slice/pod1.slice/cri-a.scope";
        let cases = [
            ("/", pod),
            ("/inner", "/kubepods.slice/pod1.slice/cri-a.scope/inner"),
            ("/../cri-b.scope", "/kubepods.slice/pod1.slice/cri-b.scope"),
            ("/../../pod2.slice/cri-c.scope", "/kubepods.slice/pod2.slice/cri-c.scope"),
            ("/../../..", "/"),
            ("/../../../system.slice/ssh.service", "/system.slice/ssh.service"),
            // More steps than there are, and a name that only looks like one.
            ("/../../../../../x", "/x"),
            ("/..x", "/kubepods.slice/pod1.slice/cri-a.scope/..x"),
        ];
        for (shown, expected) in cases {
            assert_eq!(resolve(pod, shown), expected, "{shown}");
        }
        assert_eq!(resolve("", "/a/b"), "/a/b");
    }

    #[test]
    fn mountinfo_lines_of_cgroups_are_read_and_others_are_not() {
        let v1 =
            cgroup_mount("30 22 0:26 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids").unwrap();
        assert!(!v1.v2 && v1.options.contains(&"pids".to_owned()));
        assert!(!v1.namespaced);
        let v2 = cgroup_mount("30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate").unwrap();
        assert!(v2.v2);
        assert!(cgroup_mount("30 22 0:26 /a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids").is_none());
        let line = "30 22 0:26 /../../.. /host/cgroup ro,relatime - cgroup2 cgroup2 rw";
        assert!(cgroup_mount(line).unwrap().namespaced);
        assert!(cgroup_mount("30 22 0:26 /../x /host/cgroup ro - cgroup2 cgroup2 rw").is_none());
        assert!(cgroup_mount("1 1 8:1 / / rw - ext4 /dev/root rw").is_none());
    }
}
