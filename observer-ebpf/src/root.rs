//! A task's root directory: what it is, and the path that leads to it, as the kernel has both.
//!
//! A path in a caller's memory is what the caller says now, and another thread may have written it after the kernel read
//! it. What the task got is `fs->root`: a dentry in a mount. The way up from there, over parents and from each mount
//! to the place where it hangs, as `prepend_path` (fs/d_path.c) goes it, gives the path in the mount's namespace, of
//! which nothing is the caller's to choose but the names of directories.
//!
//! No lock is taken: of a directory that is renamed in the very moment of the call, old and new names may be mixed.

use observer_common::{MAX_NAME, MAX_ROOT_PATH, ROOT_STEPS, Root, ability};

use crate::{
    emit::Frame,
    offsets::{Place, able, follow, load, offset, read, read_text},
    task::Task,
};

/// `struct path`: pointers that the verifier knows the types of, where it knows any.
#[derive(Clone, Copy)]
pub struct Directory {
    mnt: Place,
    dentry: Place,
}

impl Directory {
    /// The task's root. Read once for all that is said about it: a thread that shares it may change it at any time.
    /// To be asked only where there is [`ability::ROOT_MOUNT`].
    #[inline(always)]
    pub fn root_of(task: Task) -> Self {
        // SAFETY: typed members.
        unsafe {
            let fs = follow(task.0, offset!(task_fs));
            Directory { mnt: follow(fs, offset!(fs_root_mnt)), dentry: follow(fs, offset!(fs_root_dentry)) }
        }
    }

    /// The dentry at the root of its mount.
    #[inline(always)]
    pub fn mount_root(self) -> Place {
        // SAFETY: typed members.
        unsafe { follow(self.mnt, offset!(vfsmount_root)) }
    }

    /// What it is; see [`Root`].
    #[inline(always)]
    pub fn describe(self) -> Root {
        // SAFETY: typed members; the way from a vfsmount back to its mount is a negative offset, which only the
        // helper may read.
        unsafe {
            let mount = self.mnt.at.wrapping_sub(offset!(mount_vfsmount));
            let ns: *const u8 = read(mount, offset!(mount_ns));
            Root {
                mnt_ns: read(ns, offset!(mnt_inum)),
                dev: load(follow(self.mnt, offset!(vfsmount_sb)), offset!(sb_dev)),
                mount_root_ino: load(follow(self.mount_root(), offset!(dentry_inode)), offset!(inode_ino)),
                ino: load(follow(self.dentry, offset!(dentry_inode)), offset!(inode_ino)),
            }
        }
    }

    /// Begins a walk at it: one of the loads in front of all branches, see `Frame::fill`.
    #[inline(always)]
    pub fn start(self, frame: &Frame) {
        let walk = frame.walk();
        // SAFETY: this CPU's scratch. Through memory the pointers become numbers, which may be compared, and which the
        // helper takes whatever they are.
        unsafe {
            (&raw mut (*walk).dentry).write_volatile(self.dentry.at as u64);
            let mount = self.mnt.at.wrapping_sub(offset!(mount_vfsmount));
            (&raw mut (*walk).mount).write_volatile(mount as u64);
        }
    }
}

/// Where a walk upwards is. It lies in memory, so that the verifier has nothing to remember from one step to the next and
/// looks at each of them once.
#[repr(C)]
pub struct Walk {
    dentry: u64,
    /// A `struct mount`.
    mount: u64,
    /// Bytes written.
    len: u64,
    /// 1 once it is at the top of all mounts.
    whole: u64,
}

/// Writes the names on the way up from where [`Directory::start`] began, the directory's own first, each with its NUL, to
/// `at` in the frame, which has room for [`MAX_ROOT_PATH`] bytes there. Returns their length, and whether they are all.
/// To be called only where there is [`ability::ROOT_PATH`].
#[inline(always)]
pub fn path(frame: &Frame, at: usize) -> (usize, bool) {
    let walk = frame.walk();
    // SAFETY: the walk lies in this CPU's scratch; what it points to is read by helper, which gives zeros where nothing
    // can be read, and nothing more is done with zeros; a name is written inside the room at `at`.
    unsafe {
        let (dentry, mount) = (&raw mut (*walk).dentry, &raw mut (*walk).mount);
        let (len, whole) = (&raw mut (*walk).len, &raw mut (*walk).whole);
        len.write_volatile(0);
        whole.write_volatile(0);
        for _ in 0..ROOT_STEPS {
            let (here, on) = (dentry.read_volatile(), mount.read_volatile());
            if here == 0 || on == 0 {
                break;
            }
            let top: u64 = read(on as *const u8, offset!(mount_root));
            if here == top {
                let below: u64 = read(on as *const u8, offset!(mount_parent));
                if below == on {
                    whole.write_volatile(1);
                    break;
                }
                dentry.write_volatile(read(on as *const u8, offset!(mount_point)));
                mount.write_volatile(below);
                continue;
            }
            let above: u64 = read(here as *const u8, offset!(dentry_parent));
            let name: *const u8 = read(here as *const u8, offset!(dentry_name));
            let written = len.read_volatile() as usize;
            // Its own parent: the root of a file system, and not of the mount. The directory was moved out of what the
            // mount shows.
            if above == here || written > MAX_ROOT_PATH - MAX_NAME {
                break;
            }
            let got = read_text(frame.at(at + (written & (MAX_ROOT_PATH - 1))), MAX_NAME, name);
            if got <= 1 {
                break;
            }
            len.write_volatile((written + got as usize) as u64);
            dentry.write_volatile(above);
        }
        // (A last name may end at the very end of the room.)
        let len = len.read_volatile() as usize & (2 * MAX_ROOT_PATH - 1);
        (len, whole.read_volatile() != 0)
    }
}

/// Whether [`path`] can be asked.
#[inline(always)]
pub fn has_paths() -> bool {
    able(ability::ROOT | ability::ROOT_MOUNT | ability::ROOT_PATH)
}
