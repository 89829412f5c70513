//! Recordings: every input of the core in the order in which it was consumed, so that a replay needs no host.
//!
//! A file is [`MAGIC`] and then entries: one byte of kind, four bytes of length (little endian), the payload. Frames
//! are kept raw, the rest as JSON.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
    rc::Rc,
};

use observer_common::Inodes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::core::{Core, Tick};
use crate::{
    config,
    enrich::Snapshot,
    host::{Host, RuntimeFacts},
    limits::Round,
    model::{Alert, AppArmorRecord, Clock, Label},
};

/// Names the format; the last byte is its version.
const MAGIC: &[u8; 8] = b"OBSREC\0\x01";
/// No entry is larger: a snapshot of the largest node is far smaller.
const MAX_ENTRY: u32 = 256 << 20;

const START: u8 = 1;
const FRAME: u8 = 2;
const TICK: u8 = 3;
const EXPIRE: u8 = 4;
const RUNTIME: u8 = 5;
const SWEEP: u8 = 6;
const IMAGE: u8 = 7;
const END: u8 = 8;
const CGROUP: u8 = 9;
const ROUND: u8 = 10;
const LABELS: u8 = 11;
const APPARMOR: u8 = 12;

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a recording of this version (expected it to begin with OBSREC and version 1)")]
    Magic,
    #[error("at byte {at}: {what}")]
    Format { at: u64, what: String },
}

#[derive(Serialize, Deserialize)]
struct Start {
    node: String,
    clock: Clock,
    snapshot: Snapshot,
    /// As it was configured then. Absent in recordings that are older than it.
    #[serde(default)]
    limits: config::Limits,
}

/// An answer of the host, with what was asked, so that a replay notices when it asks something else.
#[derive(Serialize, Deserialize)]
struct Answer<Q, A> {
    asked: Q,
    answer: A,
}

/// Writes a recording. Errors are kept and told at the end: recording must not disturb what it records.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: BufWriter<File>,
    error: Option<io::Error>,
}

impl Recorder {
    pub fn create(path: &Path) -> Result<Self, RecordError> {
        use std::os::unix::fs::OpenOptionsExt;
        // Arguments of processes are in it: for its owner only.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC)?;
        Ok(Recorder { inner: Rc::new(RefCell::new(Inner { file, error: None })) })
    }

    fn entry(&self, kind: u8, payload: &[u8]) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.error.is_some() {
            return;
        }
        let mut write = || -> io::Result<()> {
            inner.file.write_all(&[kind])?;
            inner.file.write_all(&(payload.len() as u32).to_le_bytes())?;
            inner.file.write_all(payload)
        };
        if let Err(error) = write() {
            inner.error = Some(error);
        }
    }

    fn json(&self, kind: u8, value: &impl Serialize) {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.entry(kind, &bytes),
            Err(error) => self.inner.borrow_mut().error = Some(io::Error::other(error)),
        }
    }

    pub fn start(&self, node: &str, clock: Clock, snapshot: &Snapshot, limits: &config::Limits) {
        #[derive(Serialize)]
        struct StartRef<'a> {
            node: &'a str,
            clock: Clock,
            snapshot: &'a Snapshot,
            limits: &'a config::Limits,
        }
        self.json(START, &StartRef { node, clock, snapshot, limits });
    }

    pub fn frame(&self, frame: &[u8]) {
        self.entry(FRAME, frame);
    }

    pub fn tick(&self, tick: &Tick) {
        self.json(TICK, tick);
    }

    pub fn round(&self, round: &Round) {
        self.json(ROUND, round);
    }

    pub fn denied_access(&self, records: &[AppArmorRecord]) {
        self.json(APPARMOR, &records);
    }

    pub fn expire(&self, now_ns: u64) {
        self.json(EXPIRE, &now_ns);
    }

    /// An answer of the host, made up.
    #[cfg(test)]
    pub fn answer_runtime(&self, id: &str, answer: Option<RuntimeFacts>) {
        self.json(RUNTIME, &Answer { asked: id, answer: &answer });
    }

    #[cfg(test)]
    pub fn answer_labels(&self, asked: &[(u32, u64)], answer: &[Option<Label>]) {
        self.json(LABELS, &Answer { asked, answer });
    }

    /// Ends the file; the first error of all is told here.
    pub fn finish(&self) -> Result<(), RecordError> {
        self.entry(END, &[]);
        let inner = &mut *self.inner.borrow_mut();
        if let Some(error) = inner.error.take() {
            return Err(error.into());
        }
        Ok(inner.file.flush()?)
    }
}

/// A host whose answers are recorded.
pub struct RecordingHost<H> {
    pub host: H,
    pub recorder: Recorder,
}

impl<H: Host> Host for RecordingHost<H> {
    fn runtime(&mut self, id: &str) -> Option<RuntimeFacts> {
        let answer = self.host.runtime(id);
        self.recorder.json(RUNTIME, &Answer { asked: id, answer: &answer });
        answer
    }

    fn sweep(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Inodes>> {
        let answer = self.host.sweep(pids);
        self.recorder.json(SWEEP, &Answer { asked: pids, answer: &answer });
        answer
    }

    fn image(&mut self, pid: u32, start_ticks: u64) -> Option<(Option<String>, Vec<String>)> {
        let answer = self.host.image(pid, start_ticks);
        self.recorder.json(IMAGE, &Answer { asked: (pid, start_ticks), answer: &answer });
        answer
    }

    fn labels(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Label>> {
        let answer = self.host.labels(pids);
        self.recorder.json(LABELS, &Answer { asked: pids, answer: &answer });
        answer
    }

    fn cgroup_path(&mut self, hierarchy: u32, id: u64) -> Option<String> {
        let answer = self.host.cgroup_path(hierarchy, id);
        self.recorder.json(CGROUP, &Answer { asked: (hierarchy, id), answer: &answer });
        answer
    }
}

struct Reader {
    file: BufReader<File>,
    at: u64,
    /// The first thing that did not fit while a host was being asked.
    error: Option<RecordError>,
}

impl Reader {
    fn next(&mut self) -> Result<(u8, Vec<u8>), RecordError> {
        let at = self.at;
        let cut = |_| RecordError::Format { at, what: "the recording is cut off here".into() };
        let mut head = [0; 5];
        self.file.read_exact(&mut head).map_err(cut)?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        if len > MAX_ENTRY {
            return Err(RecordError::Format {
                at,
                what: format!("an entry of {len} bytes, more than any real one"),
            });
        }
        let mut payload = Vec::new();
        (&mut self.file).take(u64::from(len)).read_to_end(&mut payload)?;
        if payload.len() != len as usize {
            return Err(RecordError::Format { at, what: "the recording is cut off here".into() });
        }
        self.at += 5 + u64::from(len);
        Ok((head[0], payload))
    }

    fn parse<T: DeserializeOwned>(&self, at: u64, payload: &[u8]) -> Result<T, RecordError> {
        serde_json::from_slice(payload).map_err(|error| RecordError::Format { at, what: error.to_string() })
    }

    fn answer<Q: DeserializeOwned + PartialEq, A: DeserializeOwned>(
        &mut self,
        kind: u8,
        asked: &Q,
    ) -> Result<A, RecordError> {
        let at = self.at;
        let (found, payload) = self.next()?;
        if found != kind {
            return Err(RecordError::Format {
                at,
                what: format!("expected an answer of the host, found entry {found}"),
            });
        }
        let answer: Answer<Q, A> = self.parse(at, &payload)?;
        if answer.asked != *asked {
            return Err(RecordError::Format {
                at,
                what: "this version asks the host something else here".into(),
            });
        }
        Ok(answer.answer)
    }
}

/// Answers from a recording.
#[derive(Clone)]
pub struct ReplayHost {
    reader: Rc<RefCell<Reader>>,
}

impl ReplayHost {
    fn answer<Q: DeserializeOwned + PartialEq, A: DeserializeOwned>(&self, kind: u8, asked: &Q) -> Option<A> {
        let reader = &mut *self.reader.borrow_mut();
        if reader.error.is_some() {
            return None;
        }
        match reader.answer(kind, asked) {
            Ok(answer) => Some(answer),
            Err(error) => {
                reader.error = Some(error);
                None
            }
        }
    }
}

impl Host for ReplayHost {
    fn runtime(&mut self, id: &str) -> Option<RuntimeFacts> {
        self.answer(RUNTIME, &id.to_owned()).flatten()
    }

    fn sweep(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Inodes>> {
        self.answer(SWEEP, &pids.to_vec()).unwrap_or_default()
    }

    fn image(&mut self, pid: u32, start_ticks: u64) -> Option<(Option<String>, Vec<String>)> {
        self.answer(IMAGE, &(pid, start_ticks)).flatten()
    }

    fn labels(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Label>> {
        self.answer(LABELS, &pids.to_vec()).unwrap_or_default()
    }

    fn cgroup_path(&mut self, hierarchy: u32, id: u64) -> Option<String> {
        self.answer(CGROUP, &(hierarchy, id)).flatten()
    }
}

/// Runs a recording through the core.
pub struct Replay {
    reader: Rc<RefCell<Reader>>,
}

impl Replay {
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(|_| RecordError::Magic)?;
        if &magic != MAGIC {
            return Err(RecordError::Magic);
        }
        Ok(Replay { reader: Rc::new(RefCell::new(Reader { file, at: MAGIC.len() as u64, error: None })) })
    }

    /// Calls `alert` for each alert, in order. A cut-off recording gives what it holds, then the error.
    pub fn run(self, mut alert: impl FnMut(Alert)) -> Result<(), RecordError> {
        let mut host = ReplayHost { reader: self.reader.clone() };
        let mut core: Option<Core> = None;
        loop {
            let (at, (kind, payload)) = {
                let reader = &mut *self.reader.borrow_mut();
                if let Some(error) = reader.error.take() {
                    return Err(error);
                }
                (reader.at, reader.next()?)
            };
            let format = |what: &str| RecordError::Format { at, what: what.into() };
            let alerts = match (kind, &mut core) {
                (START, None) => {
                    let start: Start = self.reader.borrow().parse(at, &payload)?;
                    let mut new = Core::new(start.node, start.clock, &start.snapshot, start.limits);
                    let alerts = new.start(&start.snapshot, &mut host);
                    new.take_effects();
                    core = Some(new);
                    alerts
                }
                (_, None) => return Err(format("the recording does not begin with a snapshot")),
                // A frame that could not be read when live cannot be read now either: the tick has the count.
                (FRAME, Some(core)) => {
                    core.frame(&payload, &mut host).map(|(_, alerts)| alerts).unwrap_or_default()
                }
                (TICK, Some(core)) => {
                    let tick: Tick = self.reader.borrow().parse(at, &payload)?;
                    core.tick(&tick, &mut host)
                }
                (EXPIRE, Some(core)) => {
                    let now: u64 = self.reader.borrow().parse(at, &payload)?;
                    core.expire(now, &mut host)
                }
                (ROUND, Some(core)) => {
                    let round: Round = self.reader.borrow().parse(at, &payload)?;
                    core.round(round)
                }
                (APPARMOR, Some(core)) => {
                    let records: Vec<AppArmorRecord> = self.reader.borrow().parse(at, &payload)?;
                    core.denied_access(&records)
                }
                (END, Some(core)) => {
                    core.finish().into_iter().for_each(alert);
                    return Ok(());
                }
                (other, Some(_)) => return Err(format(&format!("unexpected entry {other}"))),
            };
            if let Some(core) = &mut core {
                core.take_effects();
            }
            alerts.into_iter().for_each(&mut alert);
        }
    }
}
