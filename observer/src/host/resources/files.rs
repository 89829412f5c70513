//! Files of one cgroup directory: small, bounded, read with three system calls each and into one buffer.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::model::resources::Unread;

/// Longer than any of these files gets: io.stat with a thousand devices.
const MAX_FILE: usize = 128 << 10;
/// Most files are shorter; one that is not makes the buffer grow.
const USUAL_FILE: usize = 8 << 10;
/// So many complaints are enough.
const MAX_UNREAD: usize = 64;
/// Limits from here up are v1's way to say "none": the greatest number of bytes that a `long` counts, rounded down to
/// whole pages (mm/page_counter.c, PAGE_COUNTER_MAX; mm/hugetlb_cgroup.c rounds to huge pages, of 16 GiB at most).
const UNLIMITED_FROM: u64 = i64::MAX as u64 - (16 << 30);

/// Why a file could not be made sense of.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("longer than {MAX_FILE} bytes")]
    TooLong,
    #[error("not text")]
    NotText,
    #[error("not a number")]
    NotANumber,
    #[error("unknown format")]
    UnknownFormat,
    #[error("the cgroup is outside of the hierarchy's root")]
    Outside,
    #[error("the cgroup's name is not text")]
    NameNotText,
}

/// A limit, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    At(u64),
}

impl Limit {
    pub(super) fn of(value: u64) -> Limit {
        if value >= UNLIMITED_FROM { Limit::None } else { Limit::At(value) }
    }

    pub(super) fn at(self) -> Option<u64> {
        match self {
            Limit::None => None,
            Limit::At(value) => Some(value),
        }
    }
}

/// Reads files of the cgroup that it was told to enter. What is not there is `None`; what is there and cannot be read
/// is `None` and noted.
#[derive(Debug, Default)]
pub(super) struct Files {
    path: PathBuf,
    buffer: Vec<u8>,
    /// The file read last was not there.
    absent: bool,
    kept: Kept,
    pub(super) unread: Vec<Unread>,
}

impl Files {
    /// Keeps at most so many files open from one round to the next.
    pub(super) fn keep_open(&mut self, limit: usize) {
        self.kept.limit = limit;
    }

    /// Closes those that the last round did not read.
    pub(super) fn new_round(&mut self) {
        self.kept.new_round();
    }

    /// Goes to a cgroup; false where there is nothing to be read of it.
    pub(super) fn enter(&mut self, mount: &Path, cgroup: &str) -> bool {
        let mut path = std::mem::take(&mut self.path).into_os_string();
        path.clear();
        path.push(mount);
        path.push("/");
        path.push(cgroup.trim_start_matches('/'));
        self.path = PathBuf::from(path);
        // A cgroup outside of the agent's cgroup namespace is shown as `/../..`.
        if cgroup.split('/').any(|part| part == "..") || cgroup.contains('\0') {
            self.note(ReadError::Outside);
            return false;
        }
        // Names that are not UTF-8 reach us with this mark in place of what they were.
        if cgroup.contains('\u{fffd}') && !self.path.exists() {
            self.note(ReadError::NameNotText);
            return false;
        }
        true
    }

    /// What a file says; the last line end is cut off.
    pub(super) fn text(&mut self, name: &str) -> Option<&str> {
        self.path.push(name);
        let read = self.kept.read(&self.path, &mut self.buffer);
        self.absent = false;
        let length = match read {
            Ok(length) => length,
            Err(ReadError::Io(error)) if is_absent(&error) => {
                self.path.pop();
                self.absent = true;
                return None;
            }
            Err(error) => {
                self.note(error);
                self.path.pop();
                return None;
            }
        };
        let valid = self.buffer.get(..length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
        if !valid {
            self.note(ReadError::NotText);
        }
        self.path.pop();
        let text = std::str::from_utf8(self.buffer.get(..length)?).ok()?;
        Some(text.strip_suffix('\n').unwrap_or(text))
    }

    /// Whether the file read last was not there: so the rest of its controller's is not, either.
    pub(super) fn absent(&self) -> bool {
        self.absent
    }

    /// A file that is one number.
    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        self.parse(name, number)
    }

    /// A file that is one limit.
    pub(super) fn limit(&mut self, name: &str) -> Option<Limit> {
        self.parse(name, limit)
    }

    /// A file as `parse` understands it; what it does not is noted.
    pub(super) fn parse<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, ReadError>,
    ) -> Option<T> {
        match parse(self.text(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.path.push(name);
                self.note(error);
                self.path.pop();
                None
            }
        }
    }

    /// A file of lines `key value`; true if it was there. Values that are no numbers are noted.
    pub(super) fn keyed(&mut self, name: &str, mut each: impl FnMut(&str, u64)) -> bool {
        let parsed = self.parse(name, |text| {
            let mut whole = Ok(());
            for line in text.lines() {
                // A line of another shape is something newer than this.
                let Some((key, value)) = line.split_once(' ') else { continue };
                match number(value) {
                    Ok(value) => each(key, value),
                    Err(error) => whole = Err(error),
                }
            }
            whole
        });
        parsed.is_some()
    }

    /// Notes what is the matter with the current path.
    fn note(&mut self, error: ReadError) {
        if self.unread.len() < MAX_UNREAD {
            let what = self.path.display().to_string();
            let why = error.to_string();
            self.unread.push(Unread { what, why });
        }
    }

    /// Names in the current directory; empty if it cannot be read.
    pub(super) fn names(&self) -> Vec<OsString> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name()).collect()
    }
}

/// The file or its cgroup is not there, or the kernel has it and not the thing behind it: pressure or swap accounting
/// that is turned off answers EOPNOTSUPP, a cgroup removed after the file was opened ENODEV (fs/kernfs/file.c).
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::EOPNOTSUPP | libc::ENAMETOOLONG)
    )
}

/// Files that stay open. To open and close a file of a cgroup costs several times what reading it does; and an open one
/// is that of the cgroup it was opened in, never of another that was made at the same place since.
#[derive(Debug, Default)]
struct Kept {
    limit: usize,
    round: u64,
    /// And the round in which each was last read.
    files: HashMap<PathBuf, (File, u64)>,
}

impl Kept {
    fn read(&mut self, path: &Path, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
        if self.limit == 0 {
            return read(&File::open(path)?, buffer);
        }
        if let Some((file, round)) = self.files.get_mut(path) {
            *round = self.round;
            match read(file, buffer) {
                // Its cgroup is gone; there may be another one there.
                Err(ReadError::Io(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                    self.files.remove(path);
                }
                read => return read,
            }
        }
        let file = File::open(path)?;
        let length = read(&file, buffer)?;
        if self.files.len() < self.limit {
            self.files.insert(path.to_owned(), (file, self.round));
        }
        Ok(length)
    }

    fn new_round(&mut self) {
        let last = self.round;
        self.files.retain(|_, (_, round)| *round == last);
        self.round = self.round.wrapping_add(1);
    }
}

/// Reads a file into the buffer. These files are made whole for each read at offset 0, so a read that did not fill the
/// buffer has it all, and asking for the end would be a system call for nothing.
fn read(file: &File, buffer: &mut Vec<u8>) -> Result<usize, ReadError> {
    if buffer.is_empty() {
        buffer.resize(USUAL_FILE, 0);
    }
    let mut length = 0;
    loop {
        let room = buffer.get_mut(length..).unwrap_or_default();
        let read = match file.read_at(room, length as u64) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        length += read;
        if length < buffer.len() {
            return Ok(length);
        }
        if length >= MAX_FILE {
            return Err(ReadError::TooLong);
        }
        buffer.resize((length * 2).min(MAX_FILE), 0);
    }
}

/// Digits and nothing else: the kernel writes no sign before a count. More than 64 bits is no number.
pub(super) fn number(text: &str) -> Result<u64, ReadError> {
    if text.starts_with('+') {
        return Err(ReadError::NotANumber);
    }
    text.trim_ascii_end().parse().map_err(|_| ReadError::NotANumber)
}

/// `max` (v2), or a number that may be so large that it means none (v1).
pub(super) fn limit(text: &str) -> Result<Limit, ReadError> {
    match text.trim_ascii_end() {
        "max" => Ok(Limit::None),
        text => number(text).map(Limit::of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_limits() {
        for (text, value) in [
            ("0", Some(Limit::At(0))),
            ("7999488", Some(Limit::At(7_999_488))),
            ("12 ", Some(Limit::At(12))),
            ("max", Some(Limit::None)),
            ("9223372036854771712", Some(Limit::None)),
            ("9223372036854710272", Some(Limit::None)),
            ("9223372036854775807", Some(Limit::None)),
            ("9223372036852678656", Some(Limit::None)),
            ("9223372035781033984", Some(Limit::None)),
            ("18446744073709551615", Some(Limit::None)),
            ("9223372019674906622", Some(Limit::At(9_223_372_019_674_906_622))),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("0x10", None),
            ("99999999999999999999999999", None),
            ("maximum", None),
            ("1 2", None),
        ] {
            assert_eq!(limit(text).ok(), value, "{text:?}");
        }
        assert!(number("max").is_err());
    }

    #[test]
    fn reads_are_bounded_and_a_short_read_is_the_whole_file() {
        let dir = std::env::temp_dir().join(format!("observer-files-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make a directory");
        let file = dir.join("file");
        let mut buffer = Vec::new();
        for (size, whole) in [
            (0, true),
            (1, true),
            (USUAL_FILE - 1, true),
            (USUAL_FILE, true),
            (USUAL_FILE + 1, true),
            (MAX_FILE - 1, true),
            (MAX_FILE, false),
            (MAX_FILE * 3, false),
        ] {
            std::fs::write(&file, vec![b'x'; size]).expect("write");
            let file = File::open(&file).expect("open");
            assert_eq!(read(&file, &mut buffer).ok(), whole.then_some(size), "{size}");
            assert!(buffer.len() <= MAX_FILE);
        }
        std::fs::remove_dir_all(dir).expect("remove");
    }
}
