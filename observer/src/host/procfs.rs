//! /proc.

use std::{fs, io::Read, mem::MaybeUninit, os::unix::fs::MetadataExt, path::Path};

use observer_common::{CallSet, Host, Inodes, MAX_ARGS, NAMESPACE_NAMES, NAMESPACES, NS_MNT, NS_PID, Root};
use procfs::{
    FromRead,
    process::{Process, Stat},
};

use rustix::fs::{Mode, OFlags};

use super::{ProcFacts, lsm};
use crate::model::Label;

const PF_KTHREAD: u32 = 0x0020_0000;

/// All processes, read by as many threads as there are CPUs, within reason: it is what the start waits for. One that
/// ends meanwhile is left out; what may not be read is left empty.
pub fn scan(proc: &Path) -> std::io::Result<Vec<ProcFacts>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc)? {
        let Ok(entry) = entry else { continue };
        pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(scan_some(proc, pids, true))
}

/// The same of these processes; without namespaces, cgroups and inner pids if not `whole`.
pub fn scan_some(proc: &Path, pids: Vec<u32>, whole: bool) -> Vec<ProcFacts> {
    let own_pid_ns = namespaces(&proc.join("self"))[NS_PID];
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let part = pids.len().div_ceil(threads).max(1);
    let read_all = |part: &[u32]| -> Vec<ProcFacts> {
        let mut buffer = Vec::new();
        part.iter()
            .filter_map(|pid| read(&proc.join(pid.to_string()), *pid, own_pid_ns, whole, &mut buffer))
            .collect()
    };
    let mut found: Vec<ProcFacts> = std::thread::scope(|scope| {
        let others: Vec<_> =
            pids.chunks(part).skip(1).map(|part| scope.spawn(move || read_all(part))).collect();
        let mut found = pids.chunks(part).next().map(read_all).unwrap_or_default();
        for other in others {
            // A panic there is a panic here.
            found.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        found
    });
    found.sort_by_key(|facts| (facts.start_ticks, facts.pid));
    found
}

/// Reads what the kernel writes in one go with one read, and one more that finds the end: `fs::read` asks for the size
/// first, which /proc does not tell, and then begins with 32 bytes. For thousands of processes that counts.
fn read_file<'a>(path: &Path, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    const FIRST: usize = 8 << 10;
    const MOST: usize = 1 << 20;
    let mut file = fs::File::open(path).ok()?;
    let mut filled = 0;
    loop {
        if buffer.len() - filled < FIRST {
            buffer.resize(filled + FIRST, 0);
        }
        match file.read(buffer.get_mut(filled..)?) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if filled > MOST {
            break;
        }
    }
    buffer.get(..filled)
}

fn stat_of(dir: &Path, buffer: &mut Vec<u8>) -> Option<Stat> {
    Stat::from_read(read_file(&dir.join("stat"), buffer)?).ok()
}

fn read(dir: &Path, pid: u32, own_pid_ns: u32, whole: bool, buffer: &mut Vec<u8>) -> Option<ProcFacts> {
    let stat = stat_of(dir, buffer)?;
    if stat.state == 'Z' || stat.state == 'X' {
        // Its namespaces are gone, and v1 shows the root for its cgroups.
        return None;
    }
    let kernel_thread = stat.flags & PF_KTHREAD != 0;
    let whole = whole && !kernel_thread;
    let inodes = if whole { namespaces(dir) } else { [0; NAMESPACES] };
    // The status file is the costliest to read, and needed only where the pid in the process's own namespace differs;
    // the directory's owner is the effective user.
    let (uid, gid, ns_pid) = if !whole || inodes[NS_PID] == own_pid_ns {
        let meta = fs::metadata(dir).ok()?;
        (meta.uid(), meta.gid(), pid)
    } else {
        ids(dir, pid, buffer)
    };
    Some(ProcFacts {
        pid,
        ppid: stat.ppid.max(0) as u32,
        start_ticks: stat.starttime,
        comm: stat.comm,
        exe: None,
        args: Vec::new(),
        uid,
        gid,
        ns_pid,
        inodes,
        cgroups: if whole { cgroups(dir, buffer) } else { Vec::new() },
        kernel_thread,
    })
}

/// Effective ids and the pid in the innermost namespace, of /proc/PID/status.
fn ids(dir: &Path, pid: u32, buffer: &mut Vec<u8>) -> (u32, u32, u32) {
    let text = read_file(&dir.join("status"), buffer).unwrap_or_default();
    let (mut uid, mut gid, mut ns_pid) = (0, 0, pid);
    for line in text.split(|b| *b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            // The second is the effective id.
            Some("Uid:") => uid = words.nth(1).and_then(|w| w.parse().ok()).unwrap_or(0),
            Some("Gid:") => gid = words.nth(1).and_then(|w| w.parse().ok()).unwrap_or(0),
            Some("NSpid:") => {
                ns_pid = words.next_back().and_then(|w| w.parse().ok()).unwrap_or(pid);
                break;
            }
            _ => {}
        }
    }
    (uid, gid, ns_pid)
}

/// The agent's own namespaces and root, for an agent that is told that these are the host's.
pub fn own(proc: &Path) -> std::io::Result<Host> {
    let root = fs::metadata("/")?;
    let inodes = namespaces(&proc.join("self"));
    let (major, minor) = (libc::major(root.dev()), libc::minor(root.dev()));
    Ok(Host {
        inodes,
        found: 1,
        told: 1,
        root: Root {
            mnt_ns: inodes[NS_MNT],
            // As the kernel has it (MKDEV).
            dev: major << 20 | minor,
            mount_root_ino: root.ino(),
            ino: root.ino(),
        },
    })
}

/// The tuple of /proc/PID/ns, zeros where it may not be read (or does not exist on this kernel).
fn namespaces(dir: &Path) -> Inodes {
    let mut inodes = [0; NAMESPACES];
    // The way there is found once for all ten.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(ns) = rustix::fs::open(dir.join("ns"), flags, Mode::empty()) else { return inodes };
    let mut buffer = [MaybeUninit::uninit(); 64];
    for (inode, name) in inodes.iter_mut().zip(NAMESPACE_NAMES) {
        if let Ok((link, _)) = rustix::fs::readlinkat_raw(&ns, name, &mut buffer) {
            *inode = inode_of_link(link).unwrap_or(0);
        }
    }
    inodes
}

/// `mnt:[4026531832]`
fn inode_of_link(link: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(link).ok()?;
    text.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

/// /proc/PID/cgroup: `hierarchy:controllers:path` lines.
fn cgroups(dir: &Path, buffer: &mut Vec<u8>) -> Vec<(u32, String)> {
    let bytes = read_file(&dir.join("cgroup"), buffer).unwrap_or_default();
    bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| {
            let mut parts = line.splitn(3, |b| *b == b':');
            let id = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            let path = String::from_utf8_lossy(parts.nth(1)?).into_owned();
            Some((id, path))
        })
        .collect()
}

fn is_still(dir: &Path, start_ticks: u64) -> bool {
    Stat::from_file(dir.join("stat")).is_ok_and(|stat| stat.starttime == start_ticks)
}

/// Namespaces of a process if it is still the same one and not a zombie (whose tuple is gone).
pub fn sweep_one(proc: &Path, pid: u32, start_ticks: u64) -> Option<Inodes> {
    let dir = proc.join(pid.to_string());
    let stat = Stat::from_file(dir.join("stat")).ok()?;
    if stat.starttime != start_ticks || stat.state == 'Z' || stat.state == 'X' {
        return None;
    }
    Some(namespaces(&dir))
}

/// Executable and arguments, bounded.
pub fn image(proc: &Path, pid: u32, start_ticks: u64) -> Option<(Option<String>, Vec<String>)> {
    let dir = proc.join(pid.to_string());
    if !is_still(&dir, start_ticks) {
        return None;
    }
    let exe = Process::new_with_root(dir.clone()).ok().and_then(|p| p.exe().ok());
    let mut block = Vec::new();
    let _ = fs::File::open(dir.join("cmdline")).and_then(|f| f.take(MAX_ARGS as u64).read_to_end(&mut block));
    Some((exe.map(|path| path.to_string_lossy().into_owned()), crate::decode::arguments(&block)))
}

/// AppArmor's label of a process that is still the same one.
pub fn label(proc: &Path, pid: u32, start_ticks: u64) -> Option<Label> {
    let dir = proc.join(pid.to_string());
    let label = lsm::apparmor_label(&dir)?;
    // Afterwards: what was read is then of no later process of that number.
    is_still(&dir, start_ticks).then_some(label)
}

/// The system calls that a process's threads wait in, if it is still the same one. They have no end yet that could have been seen,
/// and some never have: a server's first process waits for signals all its life.
pub fn present_calls(proc: &Path, pid: u32, start_ticks: u64) -> std::io::Result<CallSet> {
    let dir = proc.join(pid.to_string());
    let mut calls = CallSet::NONE;
    if !is_still(&dir, start_ticks) {
        return Ok(calls);
    }
    for thread in fs::read_dir(dir.join("task"))?.filter_map(Result::ok) {
        match fs::read_to_string(thread.path().join("syscall")) {
            Ok(line) => present_call(&line).into_iter().for_each(|nr| calls.insert(nr)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(error),
            // It ended.
            Err(_) => {}
        }
    }
    Ok(calls)
}

/// Number, six arguments, stack pointer, program counter; `running`; or -1 and the last two of one that waits for something else.
/// The number of a 32-bit call is another table's: its stack lies below 4 GiB.
fn present_call(line: &str) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [number, .., stack, _] = words.as_slice() else { return None };
    let stack = u64::from_str_radix(stack.strip_prefix("0x")?, 16).ok()?;
    number.parse().ok().filter(|_| stack > u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_give_their_inode() {
        assert_eq!(inode_of_link(b"mnt:[4026531832]"), Some(4026531832));
        for bad in [&b"mnt:4026"[..], b"mnt:[x]", b"", b"\xff:[1]x"] {
            assert_eq!(inode_of_link(bad), None);
        }
    }

    #[test]
    fn a_waiting_thread_tells_its_call() {
        let line = "130 0x7ffc1414ba88 0x8 0x0 0x0 0x0 0x0 0x7ffc1414ba00 0x7f4bd25642ad\n";
        assert_eq!(present_call(line), Some(130));
        let compat = "130 0xffc1ba88 0x8 0x0 0x0 0x0 0x0 0xffc1ba00 0xf7e642ad\n";
        for none in [
            compat,
            "running\n",
            "-1 0x7ffc1414ba00 0x7f4bd25642ad\n",
            "",
            "130",
            "130 a b",
            "x 0x7ffc1414ba00 0x0",
        ] {
            assert_eq!(present_call(none), None, "{none:?}");
        }
    }

    #[test]
    fn calls_that_threads_wait_in_are_found() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let waiting = std::thread::spawn(move || reader.read(&mut [0; 1]).expect("the end"));
        let (proc, me) = (Path::new("/proc"), std::process::id());
        let start = Stat::from_file(proc.join("self/stat")).expect("its stat").starttime;
        let read = crate::model::syscall::number("read").expect("a call");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !present_calls(proc, me, start).expect("may be read").contains(read) {
            assert!(std::time::Instant::now() < until, "it does not wait");
            std::thread::yield_now();
        }
        assert!(present_calls(proc, me, start + 1).expect("another process").is_empty());
        drop(writer);
        assert_eq!(waiting.join().expect("a thread"), 0);
    }

    #[test]
    fn this_process_is_found_with_its_namespaces() {
        let me = std::process::id();
        let all = scan(Path::new("/proc")).unwrap();
        let facts = all.iter().find(|p| p.pid == me).unwrap();
        assert!(facts.inodes.iter().all(|i| *i != 0), "{facts:?}");
        assert!(facts.cgroups.iter().any(|(id, _)| *id == 0) || !facts.cgroups.is_empty());
        assert!(sweep_one(Path::new("/proc"), me, facts.start_ticks).is_some());
        assert!(sweep_one(Path::new("/proc"), me, facts.start_ticks + 1).is_none());
    }
}
