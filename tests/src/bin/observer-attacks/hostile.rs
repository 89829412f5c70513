//! A process whose every name tries to break the reader: its file's name, comm and arguments hold control
//! characters, terminal escapes, quotes, invalid UTF-8, text that turns right-to-left, and 4 KiB of one letter.

use crate::sys::{self, Errno};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// Begins the last argument of the second stage; what follows is "SOURCE:TYPES".
const MARK: &[u8] = b"observer-hostile-stage2:";

/// Where the copy lies: a tmpfs in the tests' containers. Every test container has its own.
const FILE: &[u8] = b"/tmp/a\x1b[2J\"b\\\n\xff\xfe'";

/// At most 15 bytes, which is all that a comm holds.
const COMM: &[u8] = b"\x1b]0;x\x07\"\\\n\xff{}\0";

pub(crate) fn first_stage(source: &str, types: &str) -> Result<String, Errno> {
    std::fs::copy("/proc/self/exe", OsStr::from_bytes(FILE)).map_err(|e| Errno::from(e, "copy"))?;
    let long = vec![b'A'; 4096];
    let last = [MARK, source.as_bytes(), b":", types.as_bytes()].concat();
    let args: [&[u8]; 9] = [
        b"\x1b[31mred\x1b[0m",
        b"\x1b]0;title\x07\x1b[2J\x1b[H",
        b"quote\" back\\slash 'tick' {\"severity\":\"info\"}\n{\"rule\":\"fake\"}",
        b"\xff\xfe\xc0\x80 invalid",
        "\u{202e}gnp.exe \u{2028}\u{9b}31m\u{7f}".as_bytes(),
        b"\r\x08\x08\x08\x01\x02\x0b\x0c",
        b"",
        &long,
        &last,
    ];
    let args: Vec<CString> = args.iter().filter_map(|arg| CString::new(*arg).ok()).collect();
    let mut pointers: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let file = CString::new(FILE).unwrap_or_default();
    // SAFETY: NUL-terminated strings in a null-terminated array, all outliving the call.
    unsafe { libc::execv(file.as_ptr(), pointers.as_ptr()) };
    Err(Errno::last("exec"))
}

/// Runs the second stage if `last` marks one.
pub(crate) fn second_stage(last: &OsStr) -> Option<Result<String, Errno>> {
    let rest = last.as_bytes().strip_prefix(MARK)?;
    let rest = String::from_utf8_lossy(rest).into_owned();
    let Some((source, types)) = rest.split_once(':') else { crate::usage() };
    Some(join(source, types))
}

fn join(source: &str, types: &str) -> Result<String, Errno> {
    // SAFETY: PR_SET_NAME reads at most 16 bytes up to a NUL, which the constant ends with.
    unsafe { libc::prctl(libc::PR_SET_NAME, COMM.as_ptr()) };
    for (file, flag) in sys::open_namespaces(source, types)? {
        sys::setns(&file, flag)?;
    }
    Ok(String::new())
}
