//! A file with a line for each alert: rotated by size and age, and opened anew when told to.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::Failure;
use crate::{
    config::{FileSink, Format},
    delivery::{format, worker::Outgoing},
    telemetry::log,
};

pub struct File {
    format: Format,
    reopen: Arc<AtomicU64>,
    /// Away while it writes: files are written by a thread that may wait for the disk.
    rotating: Option<Rotating>,
    config: FileSink,
}

impl File {
    pub fn new(config: &FileSink, reopen: &Arc<AtomicU64>) -> Self {
        File { format: config.format, reopen: Arc::clone(reopen), rotating: None, config: config.clone() }
    }

    pub async fn send(&mut self, part: &[Outgoing]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for outgoing in part {
            bytes.extend_from_slice(&format::line(self.format, outgoing));
            bytes.push(b'\n');
        }
        let generation = self.reopen.load(Ordering::Relaxed);
        let mut rotating = self.rotating.take().unwrap_or_else(|| Rotating::new(&self.config, generation));
        let written = tokio::task::spawn_blocking(move || {
            let result = rotating.write(&bytes, generation, SystemTime::now());
            (rotating, result)
        })
        .await;
        let (rotating, result) = written.map_err(Failure::retry)?;
        self.rotating = Some(rotating);
        result.map_err(|error| Failure::retry(format!("{}: {error}", self.config.path.display())))
    }
}

struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    max_age: Option<Duration>,
    keep: u32,
    generation: u64,
    open: Option<Open>,
}

struct Open {
    file: fs::File,
    bytes: u64,
    since: SystemTime,
}

impl Rotating {
    fn new(config: &FileSink, generation: u64) -> Self {
        Rotating {
            path: config.path.clone(),
            max_bytes: config.rotate_bytes,
            max_age: (config.rotate_hours > 0).then(|| Duration::from_secs(3600) * config.rotate_hours),
            keep: config.keep,
            generation,
            open: None,
        }
    }

    /// Whole lines, and on the disk when it returns.
    fn write(&mut self, lines: &[u8], generation: u64, now: SystemTime) -> io::Result<()> {
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.open = None;
        }
        let due = |open: &Open| {
            let full =
                self.max_bytes > 0 && open.bytes > 0 && open.bytes + lines.len() as u64 > self.max_bytes;
            let old = self.max_age.is_some_and(|age| {
                open.bytes > 0 && now.duration_since(open.since).is_ok_and(|time| time >= age)
            });
            full || old
        };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open(now)?,
        };
        if due(&open) {
            drop(open);
            self.rotate()?;
            open = self.open(now)?;
        }
        let result = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        match result {
            Ok(()) => {
                open.bytes += lines.len() as u64;
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the one that follows. The lines come again.
                let _ = open.file.set_len(open.bytes);
                Err(error)
            }
        }
    }

    fn open(&self, now: SystemTime) -> io::Result<Open> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            // Nobody who may write to the directory can have us write elsewhere, or wait for a pipe.
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no file"));
        }
        // The age of what is in it already is not known; its first day counts from its last change.
        let since = if metadata.size() == 0 { now } else { metadata.modified().unwrap_or(now) };
        Ok(Open { file, bytes: metadata.size(), since })
    }

    /// `alerts.json` becomes `alerts.json.1`, that `.2`, and so on.
    fn rotate(&self) -> io::Result<()> {
        let numbered = |n: u32| numbered(&self.path, n);
        for n in (1..self.keep).rev() {
            rename_if_there(&numbered(n), &numbered(n + 1))?;
        }
        rename_if_there(&self.path, &numbered(1))?;
        log::debug!("a file was rotated", path = self.path.display());
        Ok(())
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::delivery::store::tests::Scratch;

    fn sink(directory: &Path, rotate_bytes: u64, rotate_hours: u32, keep: u32) -> Rotating {
        fs::create_dir_all(directory).expect("a directory");
        let config = FileSink {
            name: "f".into(),
            filter: Default::default(),
            format: Format::Native,
            path: directory.join("a.json"),
            rotate_bytes,
            rotate_hours,
            keep,
        };
        Rotating::new(&config, 0)
    }

    fn content(directory: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .expect("the directory")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let text = fs::read_to_string(entry.path()).expect("text");
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        files.sort();
        files
    }

    fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn it_rotates_by_size_and_keeps_so_many() {
        let scratch = Scratch::new("file-size");
        let mut file = sink(&scratch.0, 10, 0, 2);
        let now = SystemTime::now();
        for line in ["one\n", "two\n", "three\n", "four\n", "a line beyond the bound\n", "six\n"] {
            file.write(line.as_bytes(), 0, now).expect("written");
        }
        let expected =
            [("a.json", "six\n"), ("a.json.1", "a line beyond the bound\n"), ("a.json.2", "three\nfour\n")];
        // "three\nfour\n" has eleven bytes: "four" began a file of its own.
        let expected_strict =
            [("a.json", "six\n"), ("a.json.1", "a line beyond the bound\n"), ("a.json.2", "four\n")];
        let found = content(&scratch.0);
        assert_ne!(found, owned(&expected));
        assert_eq!(found, owned(&expected_strict));
        let mode = fs::metadata(scratch.0.join("a.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn it_rotates_by_age() {
        let scratch = Scratch::new("file-age");
        let mut file = sink(&scratch.0, 0, 2, 5);
        let start = SystemTime::now();
        for (hours, line) in [(0, "a\n"), (1, "b\n"), (2, "c\n"), (3, "d\n")] {
            file.write(line.as_bytes(), 0, start + Duration::from_secs(3600 * hours)).expect("written");
        }
        assert_eq!(content(&scratch.0), owned(&[("a.json", "c\nd\n"), ("a.json.1", "a\nb\n")]));
    }

    #[test]
    fn it_is_opened_anew_when_told_to() {
        let scratch = Scratch::new("file-reopen");
        let mut file = sink(&scratch.0, 0, 0, 5);
        let now = SystemTime::now();
        file.write(b"a\n", 0, now).expect("written");
        fs::rename(scratch.0.join("a.json"), scratch.0.join("moved")).expect("renamed");
        file.write(b"b\n", 0, now).expect("written");
        file.write(b"c\n", 1, now).expect("written");
        assert_eq!(content(&scratch.0), owned(&[("a.json", "c\n"), ("moved", "a\nb\n")]));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let scratch = Scratch::new("file-none");
        let mut file = sink(&scratch.0, 0, 0, 5);
        std::os::unix::fs::symlink("/etc/hostname", scratch.0.join("a.json")).expect("a link");
        assert!(file.write(b"a\n", 0, SystemTime::now()).is_err());
        file.path = "/dev/null".into();
        let error = file.write(b"a\n", 0, SystemTime::now()).expect_err("a device");
        assert_eq!(error.to_string(), "is no file");
        file.path = "/dev/full".into();
        assert!(file.write(b"a\n", 0, SystemTime::now()).is_err());
    }
}
