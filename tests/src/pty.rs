//! A program whose stdout is a terminal, and every byte that it sends there.

use crate::host::Guard;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

#[derive(Debug)]
pub struct Terminal {
    bytes: Arc<Mutex<Vec<u8>>>,
    keyboard: File,
    pub guard: Guard,
}

impl Terminal {
    /// Starts `command` with a new pseudo-terminal of 50 rows and 200 columns as its stdout.
    pub fn spawn(command: &mut Command) -> Self {
        let (master, slave) = open(50, 200);
        command.stdout(slave);
        Self::start(command, master)
    }

    /// Starts `command` as a terminal emulator would: in a session of its own, whose terminal this one is, for input too.
    /// Programs that open `/dev/tty` find it there, and not the terminal of who runs the tests.
    pub fn spawn_session(command: &mut Command, rows: u16, columns: u16) -> Self {
        let (master, slave) = open(rows, columns);
        command.stdin(slave.try_clone().expect("the terminal once more")).stdout(slave);
        // SAFETY: setsid and ioctl are async-signal-safe and touch only the new child, whose stdin is the terminal.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let terminal = Self::start(command, master);
        command.stdin(Stdio::null());
        terminal
    }

    fn start(command: &mut Command, master: OwnedFd) -> Self {
        let guard = Guard::spawn(command).expect("start a program on a terminal");
        // The command keeps its copy of the slave until it is given another stdout.
        command.stdout(Stdio::null());
        let keyboard = File::from(master.try_clone().expect("the terminal's other side once more"));
        let bytes = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                let mut master = File::from(master);
                let mut buffer = [0; 4096];
                // EIO is how a terminal says that nobody is left on its other side.
                while let Ok(n) = master.read(&mut buffer) {
                    if n == 0 {
                        break;
                    }
                    bytes.lock().expect("the terminal's bytes").extend_from_slice(&buffer[..n]);
                }
            }
        });
        Self { bytes, keyboard, guard }
    }

    /// As if on a keyboard.
    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("type on the terminal");
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("the terminal's bytes").clone()
    }
}

/// A pseudo-terminal of this size: the side of who looks at it, and the side of programs.
fn open(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two locals to be filled, no name, default modes, a size that is only read.
    let made =
        unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(made, 0, "openpty: {}", std::io::Error::last_os_error());
    // The master must not leak into the child, or the terminal would never hang up.
    // SAFETY: a descriptor that was just made.
    unsafe { libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: both were just made and are owned by nobody else.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

/// The first thing in `bytes` that a terminal should never be sent from an untrusted string: anything but printable
/// text, line ends, tabs and SGR sequences (colours), and no invisible or direction-changing characters.
pub fn unsafe_for_terminal(bytes: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Some(format!("invalid UTF-8 at {}", error.valid_up_to())),
    };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\n' | '\r' | '\t' => after,
            '\u{1b}' => match after
                .strip_prefix('[')
                .map(|s| s.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'))
            {
                Some(sequence) if sequence.starts_with('m') => &sequence[1..],
                _ => {
                    return Some(format!(
                        "an escape sequence: {:?}",
                        &rest.chars().take(12).collect::<String>()
                    ));
                }
            },
            c if c.is_control() => return Some(format!("a control character {c:?}")),
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                return Some(format!("a character that hides or turns text: {c:?}"));
            }
            _ => after,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_colour_from_attack() {
        assert_eq!(unsafe_for_terminal("\u{1b}[1;31mred\u{1b}[0m\tä\r\n".as_bytes()), None);
        for bad in ["\u{1b}[2J", "\u{1b}]0;x\u{7}", "\u{8}", "\u{9b}31m", "\u{202e}", "\u{7f}"] {
            assert!(unsafe_for_terminal(bad.as_bytes()).is_some(), "{bad:?}");
        }
        assert!(unsafe_for_terminal(b"\xff").is_some());
    }
}
