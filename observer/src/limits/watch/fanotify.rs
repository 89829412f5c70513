//! fanotify on whole cgroup hierarchies: one mark each, whatever number of directories; and it knows who wrote.
//!
//! A mark on a directory would pin its inode beyond the cgroup's end (the kernel does not take marks of removed kernfs
//! directories away), and could then no longer be removed for want of a path. What is written elsewhere in the hierarchy
//! is passed over: that is mostly cgroup.procs, at the start of something.
//!
//! Events say which directory by its file handle, and which file by name. They come with no descriptor, which is what lets
//! them tell of the kernel's own notices as well (kernfs_notify, fs/kernfs/file.c, has no file to open). That needs a
//! file system id, which kernfs has since Linux 6.6: before, the mark is refused with ENODEV.

use std::{
    collections::HashMap,
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

use super::{ears::Heard, places::PlaceId};
use crate::host::Hierarchy;

/// Read in one go; the smallest event has 60 bytes.
const BUFFER: usize = 64 << 10;
/// Buffers read before something else gets its turn.
const MAX_READS: usize = 8;

/// The file handle of a kernfs directory is its id (FILEID_KERNFS), and so is its inode number.
const FILEID_KERNFS: i32 = 0xfe;

/// A directory: file system id, kernfs id.
type Directory = (u64, u64);

#[derive(Debug)]
pub(super) struct Fanotify {
    group: OwnedFd,
    buffer: Vec<u8>,
    /// File system ids by hierarchy.
    file_systems: HashMap<u32, u64>,
    places: HashMap<Directory, PlaceId>,
    directories: HashMap<PlaceId, Directory>,
}

impl Fanotify {
    /// Listens to these hierarchies.
    pub(super) fn new<'a>(hierarchies: impl Iterator<Item = &'a Hierarchy>) -> io::Result<Self> {
        let flags =
            libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME;
        // SAFETY: no pointers; the result is checked.
        let group = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) };
        if group < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let group = unsafe { OwnedFd::from_raw_fd(group) };
        let mut file_systems = HashMap::new();
        for hierarchy in hierarchies {
            let mount = CString::new(hierarchy.mount.as_os_str().as_bytes())?;
            // SAFETY: a fanotify group, and a path that ends with a zero.
            let marked = unsafe {
                libc::fanotify_mark(
                    group.as_raw_fd(),
                    libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM,
                    libc::FAN_MODIFY,
                    libc::AT_FDCWD,
                    mount.as_ptr(),
                )
            };
            if marked != 0 {
                return Err(io::Error::last_os_error());
            }
            file_systems.insert(hierarchy.id, rustix::fs::statvfs(&hierarchy.mount)?.f_fsid);
        }
        Ok(Fanotify {
            group,
            buffer: vec![0; BUFFER],
            file_systems,
            places: HashMap::new(),
            directories: HashMap::new(),
        })
    }

    /// What happens in this directory is this place's from now on.
    pub(super) fn listen(&mut self, id: PlaceId, hierarchy: u32, directory: &Path) -> io::Result<()> {
        let Some(file_system) = self.file_systems.get(&hierarchy) else { return Ok(()) };
        let directory = (*file_system, std::fs::symlink_metadata(directory)?.ino());
        self.forget(id);
        self.places.insert(directory, id);
        self.directories.insert(id, directory);
        Ok(())
    }

    pub(super) fn forget(&mut self, id: PlaceId) {
        if let Some(directory) = self.directories.remove(&id)
            && self.places.get(&directory) == Some(&id)
        {
            self.places.remove(&directory);
        }
    }

    /// Takes what there is, or a good part of it. True if some was lost.
    pub(super) fn hear(&mut self, heard: &mut Vec<Heard>) -> io::Result<bool> {
        let mut lost = false;
        for _ in 0..MAX_READS {
            let read = match rustix::io::read(&self.group, &mut self.buffer) {
                Ok(read) => read,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events(self.buffer.get(..read).unwrap_or_default()) {
                lost |= event.mask & libc::FAN_Q_OVERFLOW != 0;
                let Some((directory, name)) = event.file() else { continue };
                let Some(place) = self.places.get(&directory) else { continue };
                // 0: outside of the agent's pid namespace.
                let pid = u32::try_from(event.pid).ok().filter(|pid| *pid != 0);
                heard.extend(Heard::new(*place, name, pid));
            }
            // A buffer that is nearly empty was all there was.
            if read < BUFFER / 2 {
                break;
            }
        }
        Ok(lost)
    }
}

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// `struct fanotify_event_metadata` (include/uapi/linux/fanotify.h), and what follows it.
#[derive(Debug, PartialEq, Eq)]
struct Event<'a> {
    mask: u64,
    pid: i32,
    information: &'a [u8],
}

const METADATA: usize = 24;

/// The events in a buffer; what does not look like one ends them.
fn events(mut buffer: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(at(buffer, 0)?) as usize;
        let version = u8::from_ne_bytes(at(buffer, 4)?);
        let metadata = usize::from(u16::from_ne_bytes(at(buffer, 6)?));
        if version != libc::FANOTIFY_METADATA_VERSION || metadata < METADATA || length < metadata {
            return None;
        }
        let (event, rest) = buffer.split_at_checked(length)?;
        buffer = rest;
        Some(Event {
            mask: u64::from_ne_bytes(at(event, 8)?),
            pid: i32::from_ne_bytes(at(event, 20)?),
            information: event.get(metadata..)?,
        })
    })
}

impl<'a> Event<'a> {
    /// The directory and the name in it: `struct fanotify_event_info_fid` of the kind "directory and name".
    fn file(&self) -> Option<(Directory, &'a str)> {
        let mut rest = self.information;
        loop {
            // Kind, padding, length; the file system id; the handle's length, kind and bytes; the name and a zero.
            let kind = u8::from_ne_bytes(at(rest, 0)?);
            let length = usize::from(u16::from_ne_bytes(at(rest, 2)?));
            let (record, next) = rest.split_at_checked(length)?;
            if kind != libc::FAN_EVENT_INFO_TYPE_DFID_NAME {
                if length == 0 {
                    return None;
                }
                rest = next;
                continue;
            }
            let low = u32::from_ne_bytes(at(record, 4)?);
            let high = u32::from_ne_bytes(at(record, 8)?);
            let handle_bytes = u32::from_ne_bytes(at(record, 12)?);
            let handle_kind = i32::from_ne_bytes(at(record, 16)?);
            if handle_bytes != 8 || handle_kind != FILEID_KERNFS {
                return None;
            }
            let id = u64::from_ne_bytes(at(record, 20)?);
            let name = record.get(28..)?.split(|b| *b == 0).next()?;
            let file_system = u64::from(low) | u64::from(high) << 32;
            return Some(((file_system, id), std::str::from_utf8(name).ok()?));
        }
    }
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(mask: u64, pid: i32, information: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((METADATA + information.len()) as u32).to_ne_bytes());
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend((METADATA as u16).to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1i32).to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(information);
        bytes
    }

    fn record(kind: u8, handle_kind: i32, id: &[u8], name: &[u8]) -> Vec<u8> {
        let length = 20 + id.len() + name.len();
        let mut bytes = vec![kind, 0];
        bytes.extend((length as u16).to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(9u32.to_ne_bytes());
        bytes.extend((id.len() as u32).to_ne_bytes());
        bytes.extend(handle_kind.to_ne_bytes());
        bytes.extend(id);
        bytes.extend(name);
        bytes
    }

    const NAMED: u8 = libc::FAN_EVENT_INFO_TYPE_DFID_NAME;

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let id = 4688u64.to_ne_bytes();
        let named = record(NAMED, FILEID_KERNFS, &id, b"memory.max\0\0");
        let mut other = record(4, FILEID_KERNFS, &id, b"");
        other.extend(&named);
        let mut buffer = event(libc::FAN_MODIFY, 21105, &named);
        buffer.extend(event(libc::FAN_Q_OVERFLOW, 0, &[]));
        buffer.extend(event(libc::FAN_MODIFY, 88, &other));
        let read: Vec<_> = events(&buffer).collect();
        assert_eq!(read.iter().map(|event| event.pid).collect::<Vec<_>>(), [21105, 0, 88]);
        let file = Some(((7 | 9 << 32, 4688), "memory.max"));
        assert_eq!(read.iter().map(Event::file).collect::<Vec<_>>(), [file, None, file]);
        assert_eq!(read[1].mask, libc::FAN_Q_OVERFLOW);
    }

    #[test]
    fn what_is_not_an_event_is_none_and_nothing_panics() {
        let id = 1u64.to_ne_bytes();
        for information in [
            record(NAMED, 1, &id, b"x\0"),
            record(NAMED, FILEID_KERNFS, &id[..4], b"x\0"),
            record(NAMED, FILEID_KERNFS, &id, b"\xff\0"),
            vec![3, 0, 0, 0],
            vec![NAMED, 0, 255, 255, 1],
            vec![],
        ] {
            let bytes = event(libc::FAN_MODIFY, 1, &information);
            let read: Vec<_> = events(&bytes).collect();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].file(), None, "{information:?}");
        }
        let whole = event(libc::FAN_MODIFY, 1, &record(NAMED, FILEID_KERNFS, &id, b"pids.max\0"));
        for length in 0..whole.len() {
            assert_eq!(events(&whole[..length]).count(), 0);
            // The event says that it is shorter than it is.
            let mut short = whole.clone();
            short[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            for event in events(&short) {
                let _ = event.file();
            }
        }
        let mut version = whole;
        version[4] = 2;
        assert_eq!(events(&version).count(), 0);
    }
}
