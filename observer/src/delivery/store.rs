//! What is kept on disk: alerts that not every sink has taken yet, and how far each sink is.
//!
//! redb rather than a log of our own: a commit is whole or not there, whatever is killed when. Measured on 16,000 damaged
//! files (a bit, a page, a cut): it never panics if it checks the file when it opens it, which takes 0.5 s for 150 MB.
//! What it cannot do is to open a damaged file in part. So each alert is framed with a checksum, and is searched for in a
//! file that cannot be opened any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, backends::FileBackend,
};

const ALERTS: TableDefinition<u64, &[u8]> = TableDefinition::new("alerts");
const CURSORS: TableDefinition<&str, u64> = TableDefinition::new("cursors");

const FILE: &str = "alerts.redb";
/// A file that cannot be opened, while it is searched.
const DAMAGED: &str = "alerts.redb.damaged";

/// Pages are read rarely, and in order.
const CACHE_BYTES: usize = 1 << 20;

/// Before each alert: a magic number, its length, its checksum, its number, and up to where all sinks were.
const MAGIC: [u8; 4] = *b"OBQ1";
const FRAME_BYTES: usize = 4 + 4 + 4 + 8 + 8;
/// An alert has some kilobytes.
pub const MAX_ALERT_BYTES: usize = 1 << 20;

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: another process has it open", path.display())]
    InUse { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: Box<redb::Error> },
}

/// An alert in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place; never used again.
    pub seq: u64,
    /// As JSON.
    pub json: Bytes,
}

impl Record {
    /// What it counts for where room is bounded.
    pub fn cost(&self) -> u64 {
        (self.json.len() + FRAME_BYTES) as u64
    }
}

/// What opening it has brought to light.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The file was damaged: so many alerts were found in it.
    pub salvaged: Option<u64>,
}

#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
    max_cost: u64,
}

/// What a commit did besides.
#[derive(Debug, Default)]
pub struct Committed {
    /// The numbers of those that were removed though not every sink had them.
    pub evicted: Vec<u64>,
}

/// Where everything is when the store is opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub cursors: BTreeMap<String, u64>,
    /// The highest number that was ever given.
    pub last: u64,
    /// What is stored, as [`Record::cost`] has it.
    pub cost: u64,
}

impl Store {
    /// Opens the store in `directory`, which is made if need be. A damaged one is replaced by what is found in it;
    /// `sinks` are then where the slowest of them was.
    pub fn open(directory: &Path, max_bytes: u64, sinks: &[&str]) -> Result<(Store, Opened), StoreError> {
        let io_at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        if !directory.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_at(directory))?;
        }
        let (path, damaged) = (directory.join(FILE), directory.join(DAMAGED));
        if damaged.exists() {
            // A search that was interrupted: what it had put into the new file comes again.
            let _ = fs::remove_file(&path);
        }
        let database = match open_database(&path) {
            Err(error) if is_damage(&error) => {
                fs::rename(&path, &damaged).map_err(io_at(&path))?;
                open_database(&path)
            }
            result => result,
        };
        let database = database.map_err(|error| explained(error, &path))?;
        // What takes how much depends on how it lies in pages: at worst half of a page is empty, and pages of the last
        // commit are not free yet.
        let store = Store { database, path, max_cost: max_bytes / 5 * 2 };
        store.commit(&[], None, &mut 0)?;
        let mut opened = Opened::default();
        if damaged.exists() {
            opened.salvaged = Some(store.salvage(&damaged, sinks)?);
            fs::remove_file(&damaged).map_err(io_at(&damaged))?;
        }
        Ok((store, opened))
    }

    /// Takes over what `damaged` still has of the alerts that some sink may not have had. A free page holds what was there
    /// before, so some are old; the highest "all sinks were here" of all tells which.
    fn salvage(&self, damaged: &Path, sinks: &[&str]) -> Result<u64, StoreError> {
        let io_at = |source| StoreError::Io { path: damaged.to_owned(), source };
        let mut taken = 0;
        search(damaged, |_, then| {
            taken = taken.max(then);
            Ok(())
        })
        .map_err(io_at)?;
        let cursors: BTreeMap<String, u64> = sinks.iter().map(|sink| ((*sink).to_owned(), taken)).collect();
        let (mut found, mut numbers, mut cost) = (Vec::new(), BTreeSet::new(), 0);
        search(damaged, |record, _| {
            if record.seq > taken && numbers.insert(record.seq) {
                found.push(record);
            }
            if found.len() >= 256 {
                self.commit(&found, Some(&cursors), &mut cost).map_err(io::Error::other)?;
                found.clear();
            }
            Ok(())
        })
        .map_err(io_at)?;
        self.commit(&found, Some(&cursors), &mut cost)?;
        Ok(numbers.len() as u64)
    }

    pub fn contents(&self) -> Result<Contents, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let (alerts, cursors) = (read.open_table(ALERTS)?, read.open_table(CURSORS)?);
            let mut contents = Contents::default();
            for entry in cursors.iter()? {
                let (name, seq) = entry?;
                contents.cursors.insert(name.value().to_owned(), seq.value());
            }
            for entry in alerts.iter()? {
                let (seq, frame) = entry?;
                contents.last = seq.value();
                contents.cost += frame.value().len() as u64;
            }
            contents.last = contents.cursors.values().copied().fold(contents.last, u64::max);
            Ok(contents)
        })
    }

    /// Writes `records`, and where all sinks are; removes what all of them have, and the oldest of what is beyond the
    /// bound. `cost` is what is stored, before and after. When this returns, it is on the disk. Without `cursors` those
    /// that are there stay.
    pub fn commit(
        &self,
        records: &[Record],
        cursors: Option<&BTreeMap<String, u64>>,
        cost: &mut u64,
    ) -> Result<Committed, StoreError> {
        // Where there are no sinks, nothing has to be kept.
        let taken = cursors.map_or(0, |it| it.values().copied().min().unwrap_or(u64::MAX));
        let (committed, new_cost) = self.with(|database| {
            let (mut committed, mut new_cost) = (Committed::default(), *cost);
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(ALERTS)?;
                for record in records.iter().filter(|record| record.seq > taken) {
                    new_cost += record.cost();
                    table.insert(record.seq, &*frame(record, taken))?;
                }
                loop {
                    let first = table.first()?.map(|(seq, frame)| (seq.value(), frame.value().len()));
                    let Some((seq, size)) = first else { break };
                    if seq > taken {
                        if new_cost <= self.max_cost {
                            break;
                        }
                        committed.evicted.push(seq);
                    }
                    table.remove(seq)?;
                    new_cost = new_cost.saturating_sub(size as u64);
                }
                let mut table = write.open_table(CURSORS)?;
                if let Some(cursors) = cursors {
                    table.retain(|name, _| cursors.contains_key(name))?;
                    for (name, seq) in cursors {
                        if table.get(name.as_str())?.map(|it| it.value()) != Some(*seq) {
                            table.insert(name.as_str(), *seq)?;
                        }
                    }
                }
            }
            write.commit()?;
            Ok((committed, new_cost))
        })?;
        *cost = new_cost;
        Ok(committed)
    }

    /// How many alerts are stored after the number `after`.
    pub fn count_after(&self, after: u64) -> Result<u64, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            Ok(read.open_table(ALERTS)?.range(after.saturating_add(1)..)?.count() as u64)
        })
    }

    /// Up to `count` alerts after the number `after`, no more than `bytes` but at least one.
    pub fn read(&self, after: u64, count: usize, bytes: u64) -> Result<Vec<Record>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let alerts = read.open_table(ALERTS)?;
            let mut records = Vec::new();
            let mut size = 0;
            for entry in alerts.range(after.saturating_add(1)..)? {
                let (seq, value) = entry?;
                let json = value.value().get(FRAME_BYTES..).unwrap_or_default();
                let record = Record { seq: seq.value(), json: Bytes::copy_from_slice(json) };
                size += record.cost();
                if records.len() == count || (size > bytes && !records.is_empty()) {
                    break;
                }
                records.push(record);
            }
            Ok(records)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        act(&self.database)
            .map_err(|source| StoreError::Database { path: self.path.clone(), source: Box::new(source) })
    }
}

fn open_database(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| DatabaseError::Storage(error.into()))?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        // Without it, a page that is not what it was can make it panic.
        .set_check_integrity_on_open(true)
        .create_with_backend(FileBackend::new(file)?)
}

/// The file's content is the reason, rather than the disk or its permissions.
fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(redb::StorageError::Corrupted(_)) => true,
        DatabaseError::Storage(redb::StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => true,
        _ => false,
    }
}

fn explained(error: DatabaseError, path: &Path) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        DatabaseError::Storage(redb::StorageError::Io(source)) => StoreError::Io { path, source },
        other => StoreError::Database { path, source: Box::new(other.into()) },
    }
}

fn frame(record: &Record, taken: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES + record.json.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(record.json.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&record.seq.to_le_bytes());
    frame.extend_from_slice(&taken.to_le_bytes());
    frame.extend_from_slice(&record.json);
    let checksum = crc32fast::hash(&frame[12..]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    frame
}

/// The alert whose frame begins here, if one does, and up to where all sinks were when it was written.
fn unframe(bytes: &[u8]) -> Option<(Record, u64)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let length = word(4)? as usize;
    if length > MAX_ALERT_BYTES {
        return None;
    }
    let body = bytes.get(12..FRAME_BYTES + length)?;
    if crc32fast::hash(body) != word(8)? {
        return None;
    }
    Some((
        Record { seq: long(12)?, json: Bytes::copy_from_slice(&bytes[FRAME_BYTES..FRAME_BYTES + length]) },
        long(20)?,
    ))
}

/// Looks through a file for frames, wherever they begin.
fn search(path: &Path, mut found: impl FnMut(Record, u64) -> io::Result<()>) -> io::Result<()> {
    const CHUNK: u64 = 1 << 20;
    let mut file = File::open(path)?;
    let mut window = Vec::new();
    loop {
        let read = file.by_ref().take(CHUNK).read_to_end(&mut window)?;
        // A frame that may go on in what comes later is looked at then.
        let end = match read {
            0 => window.len(),
            _ => window.len().saturating_sub(FRAME_BYTES + MAX_ALERT_BYTES),
        };
        let mut at = 0;
        while at < end {
            let Some(next) = window[at..end].iter().position(|byte| *byte == MAGIC[0]) else { break };
            at += next;
            match unframe(&window[at..]) {
                Some((record, taken)) => {
                    at += FRAME_BYTES + record.json.len();
                    found(record, taken)?;
                }
                None => at += 1,
            }
        }
        window.drain(..at.max(end).min(window.len()));
        if read == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "store/tests.rs"]
pub(in crate::delivery) mod tests;
