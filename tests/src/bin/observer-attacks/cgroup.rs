//! Leaving by the cgroup: being moved, or being born elsewhere.

use crate::sys::{self, CloneArgs, Errno};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

/// "0" is the writer itself: the whole process through cgroup.procs, the thread alone through v1's tasks.
pub(crate) fn join(file: &str, cmd: &[&str]) -> Result<String, Errno> {
    let mut file = File::options().write(true).open(file).map_err(|e| Errno::from(e, "open"))?;
    file.write_all(b"0").map_err(|e| Errno::from(e, "write"))?;
    drop(file);
    sys::become_cmd(cmd)
}

pub(crate) fn clone_into(dir: &str, cmd: &[&str]) -> Result<String, Errno> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let dir = File::open(dir).map_err(|e| Errno::from(e, "open"))?;
    let mut args =
        CloneArgs { flags: CLONE_INTO_CGROUP, cgroup: dir.as_raw_fd() as u64, ..Default::default() };
    sys::clone3_and_run(&mut args, cmd)
}

/// A child with a pid of our choice (clone3's set_tid, since Linux 5.5): as if the kernel had come round to that number.
pub(crate) fn as_pid(pid: u64, cmd: &[&str]) -> Result<String, Errno> {
    let wanted = pid as i32;
    let mut args = CloneArgs { set_tid: &raw const wanted as u64, set_tid_size: 1, ..Default::default() };
    sys::clone3_and_run(&mut args, cmd)
}
