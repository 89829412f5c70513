//! Reading other people's files: bounded, never waiting, and with a note of what could not be read.

use std::{
    fs,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Larger than any real state file.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Longer than any name, reference or path that means something.
const MAX_TEXT_BYTES: usize = 4096;
/// More entries of a directory than this are not looked at.
const MAX_ENTRIES: usize = 4096;
const MAX_PROBLEMS: usize = 16;

/// Reads files and collects why some could not be read. A file that is not there is no problem: most are another
/// runtime's.
#[derive(Debug, Default)]
pub struct Files {
    /// For a person: the file and the reason.
    pub problems: Vec<String>,
}

impl Files {
    pub fn bytes(&mut self, path: &Path) -> Option<Vec<u8>> {
        match read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => {
                self.problem(path, &error);
                None
            }
        }
    }

    pub fn text(&mut self, path: &Path) -> Option<String> {
        Some(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    pub fn json<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let bytes = self.bytes(path)?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Some(value),
            Err(error) => {
                // Runtimes write these files while they are read: it may be whole the next time.
                self.problem(path, &error);
                None
            }
        }
    }

    /// The entries of a directory, sorted; nothing if it cannot be read.
    pub fn entries(&mut self, dir: &Path) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = match fs::read_dir(dir) {
            Ok(entries) => entries.flatten().take(MAX_ENTRIES).map(|entry| entry.path()).collect(),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Vec::new();
            }
            Err(error) => {
                self.problem(dir, &error);
                return Vec::new();
            }
        };
        found.sort();
        found
    }

    fn problem(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{}: {error}", path.display()));
        }
    }
}

/// A regular file's content. Not following a link at the end and not waiting for a pipe's other side: neither is what
/// a runtime writes.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    Ok(bytes)
}

/// A text of bounded length, cut at a character; `None` for an empty one.
pub fn bounded(text: &str) -> Option<String> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The text at a JSON pointer.
pub fn text_at(value: &Value, pointer: &str) -> Option<String> {
    bounded(value.pointer(pointer)?.as_str()?)
}

/// A process id at a JSON pointer; 0 stands for none.
pub fn pid_at(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer)?.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

/// RFC 3339 to Unix time, ns. Docker writes the year 1 for "never".
pub fn unix_ns(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().filter(|ns| *ns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read_and_the_rest_is_said() {
        let dir = std::env::temp_dir().join(format!("observer-files-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("good"), r#"{"a":1}"#).unwrap();
        fs::write(dir.join("cut"), r#"{"a":"#).unwrap();
        fs::write(dir.join("large"), vec![b' '; MAX_FILE_BYTES as usize + 1]).unwrap();
        std::os::unix::fs::symlink(dir.join("good"), dir.join("link")).unwrap();
        let fifo = std::ffi::CString::new(dir.join("pipe").to_str().unwrap()).unwrap();
        // SAFETY: a valid path.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        let mut files = Files::default();
        assert!(files.json::<Value>(&dir.join("good")).is_some());
        assert!(files.bytes(&dir.join("absent")).is_none());
        assert!(files.bytes(&dir.join("good/below")).is_none());
        assert_eq!(files.problems, Vec::<String>::new(), "what is not there is no problem");
        for bad in ["cut", "large", "link", "pipe"] {
            assert!(files.json::<Value>(&dir.join(bad)).is_none(), "{bad}");
            assert!(files.problems.pop().unwrap().contains(bad), "{bad}");
        }
        for _ in 0..100 {
            files.bytes(&dir.join("pipe"));
        }
        assert_eq!(files.problems.len(), MAX_PROBLEMS);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn texts_are_bounded_and_times_are_times() {
        let long = "ä".repeat(MAX_TEXT_BYTES);
        assert_eq!(bounded(&long).unwrap().len(), MAX_TEXT_BYTES);
        assert_eq!(bounded(""), None);
        assert_eq!(unix_ns("2024-05-01T10:00:00.000000001Z"), Some(1_714_557_600_000_000_001));
        assert_eq!(unix_ns("2024-05-01T12:00:00+02:00"), Some(1_714_557_600_000_000_000));
        for never in ["0001-01-01T00:00:00Z", "", "yesterday", "9999-12-31T00:00:00Z"] {
            assert_eq!(unix_ns(never), None, "{never}");
        }
    }
}
