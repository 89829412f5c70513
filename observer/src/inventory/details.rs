//! What /proc says about one process. Everything is read through one directory, bounded, and parsed leniently: the
//! process may end between two reads, and its texts are its own choice.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use observer_common::MAX_ARGS;
use serde::Serialize;

use super::{Capabilities, Security};
use crate::{host::lsm, model::CapSet};

/// Longer than any real status file or label.
const MAX_TEXT: u64 = 64 << 10;
/// A container with more mounts than fit is shown as far as they do.
const MAX_MOUNTS: u64 = 4 << 20;
/// An environment is at most as long as the kernel lets argument and environment be together (ARG_MAX, 2 MiB).
const MAX_ENVIRONMENT: u64 = 2 << 20;

/// The first `limit` bytes.
fn bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bounded(path, MAX_TEXT)?).into_owned())
}

/// What /proc/PID/status says (proc_pid_status, fs/proc/array.c).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub uids: Option<[u32; 4]>,
    pub ns_pids: Vec<u32>,
    pub threads: Option<u32>,
    pub capabilities: Option<Capabilities>,
    pub no_new_privs: Option<bool>,
    pub seccomp_mode: Option<u32>,
    pub seccomp_filters: Option<u32>,
}

impl Status {
    pub fn read(process: &Path) -> io::Result<Status> {
        Ok(Status::parse(&text(&process.join("status"))?))
    }

    fn parse(text: &str) -> Status {
        let mut status = Status::default();
        let mut sets = [None; 5];
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let number = || value.parse::<u32>().ok();
            let set = || u64::from_str_radix(value, 16).ok().map(CapSet);
            match key {
                "Uid" => {
                    let ids: Vec<u32> =
                        value.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
                    status.uids = ids.try_into().ok();
                }
                "NSpid" => {
                    status.ns_pids =
                        value.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
                }
                "Threads" => status.threads = number(),
                "CapInh" => sets[0] = set(),
                "CapPrm" => sets[1] = set(),
                "CapEff" => sets[2] = set(),
                "CapBnd" => sets[3] = set(),
                "CapAmb" => sets[4] = set(),
                "NoNewPrivs" => status.no_new_privs = number().map(|flag| flag != 0),
                "Seccomp" => status.seccomp_mode = number(),
                "Seccomp_filters" => status.seccomp_filters = number(),
                _ => {}
            }
        }
        if let [Some(inheritable), Some(permitted), Some(effective), Some(bounding), Some(ambient)] = sets {
            status.capabilities = Some(Capabilities { effective, permitted, inheritable, bounding, ambient });
        }
        status
    }
}

/// Everything about what a process may do.
pub fn security(process: &Path, status: &Status, apparmor: bool, selinux: bool) -> Security {
    Security {
        seccomp_mode: status.seccomp_mode,
        seccomp_filters: status.seccomp_filters,
        no_new_privs: status.no_new_privs,
        capabilities: status.capabilities,
        uids: status.uids,
        apparmor: apparmor.then(|| lsm::apparmor_label(process)).flatten(),
        selinux: selinux.then(|| lsm::selinux_context(process)).flatten(),
        root_is_uid: root_is_uid(process),
        threads: status.threads,
    }
}

/// The host's number of the process's root, if that is another than root: /proc/PID/uid_map, `inside outside count`.
fn root_is_uid(process: &Path) -> Option<u32> {
    let map = text(&process.join("uid_map")).ok()?;
    let (_, outside) = map.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
        match (words.next(), words.next()) {
            (Some(Ok(0)), Some(Ok(outside))) => Some((0, outside)),
            _ => None,
        }
    })?;
    (outside != 0).then_some(outside)
}

/// Executable and arguments, bounded. No arguments for a process that has none, or has hidden them.
pub fn program(process: &Path) -> (Option<String>, Vec<String>) {
    let exe = std::fs::read_link(process.join("exe")).ok().map(|exe| exe.to_string_lossy().into_owned());
    let args = bounded(&process.join("cmdline"), MAX_ARGS as u64).unwrap_or_default();
    (exe, crate::decode::arguments(&args))
}

/// The *names* of a process's environment variables, sorted; values are not even kept in memory longer than this.
pub fn environment_names(process: &Path) -> io::Result<Vec<String>> {
    let mut bytes = bounded(&process.join("environ"), MAX_ENVIRONMENT)?;
    let mut names: Vec<String> = bytes
        .split(|b| *b == 0)
        .filter_map(|entry| {
            let name = entry.split(|b| *b == b'=').next().filter(|name| !name.is_empty())?;
            // What has no `=` is no variable, and might be a secret.
            (name.len() < entry.len()).then(|| String::from_utf8_lossy(name).into_owned())
        })
        .collect();
    bytes.fill(0);
    names.sort();
    names.dedup();
    Ok(names)
}

/// A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// `major:minor` of the file system.
    pub device: String,
    /// Which part of the file system is mounted.
    pub root: String,
    /// Where, as the process sees it.
    pub point: String,
    pub writable: bool,
    pub options: String,
    pub filesystem: String,
    pub source: String,
    pub super_options: String,
}

/// The mount table of a process, as it sees it.
pub fn mounts(process: &Path) -> io::Result<Vec<Mount>> {
    let bytes = bounded(&process.join("mountinfo"), MAX_MOUNTS)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(mount).collect())
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    let after: Vec<&str> = after.splitn(3, ' ').collect();
    let [device, root, point, options] = before.get(2..6)? else { return None };
    let [filesystem, source, super_options] = after.as_slice() else { return None };
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        device: (*device).to_owned(),
        root: unescape(root),
        point: unescape(point),
        writable: !read_only(options) && !read_only(super_options),
        options: (*options).to_owned(),
        filesystem: (*filesystem).to_owned(),
        source: unescape(source),
        super_options: (*super_options).to_owned(),
    })
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash (mangle, fs/proc_namespace.c).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        let octal = rest
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                let code = digits.iter().fold(0u32, |code, digit| code * 8 + u32::from(digit - b'0'));
                out.push(code as u8);
                bytes = rest.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_read_and_a_strange_one_gives_nothing() {
        let status = Status::parse(
            "Name:\tx\nUid:\t1\t2\t3\t4\nNSpid:\t900\t12\t1\nThreads:\t3\nCapInh:\t0000000000000000\n\
             CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n\
             NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        );
        assert_eq!((status.uids, status.threads), (Some([1, 2, 3, 4]), Some(3)));
        assert_eq!(status.ns_pids, [900, 12, 1]);
        assert_eq!(status.capabilities.unwrap().bounding.0, 0xa804_25fb);
        assert_eq!(
            (status.no_new_privs, status.seccomp_mode, status.seccomp_filters),
            (Some(true), Some(2), Some(1))
        );
        let strange = "Uid:\t1 2\nCapPrm:\tzz\nSeccomp:\nThreads: -1\nNSpid:\t99999999999\n\n:::\n";
        assert_eq!(Status::parse(strange), Status::default());
    }

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let got = mount(line).unwrap();
        assert_eq!((got.root.as_str(), got.point.as_str(), got.writable), ("/mnt1", "/mnt 2", true));
        assert_eq!((got.filesystem.as_str(), got.source.as_str()), ("ext3", "/dev/root"));
        let read_only = mount("1 2 0:5 / /sys ro,nosuid - sysfs sysfs rw").unwrap();
        assert!(!read_only.writable);
        for strange in ["", " - ", "1 2 3 - x", "1 2 0:5 / /sys ro - sysfs", r"\"] {
            assert_eq!(mount(strange), None, "{strange}");
        }
        assert_eq!(unescape(r"a\134b\09\"), r"a\b\09\");
    }

    #[test]
    fn only_names_of_the_environment_are_told() {
        let dir = std::env::temp_dir().join(format!("observer-environ-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("environ"), b"PATH=/bin\0TOKEN=secret=x\0naked-secret\0\0=odd\0PATH=/x\0")
            .unwrap();
        assert_eq!(environment_names(&dir).unwrap(), ["PATH", "TOKEN"]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
