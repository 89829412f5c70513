//! Reads containers' cgroups on a timer, and at once when the kernel says that something happened there.
//!
//! A thread of its own, `limits`, because a read of a cgroup's file takes the kernel's locks and may wait. The pipeline takes
//! what it has read when it likes: what waits is bounded, and newer samples take the place of older ones.
//!
//! What happens between polls is heard by fanotify or inotify (`ears`), and on v1 by memory's eventfd (`memory_events`).
//! Neither is needed: the poll sees the same, later.

mod due;
mod ears;
mod fanotify;
mod files;
mod inotify;
mod memory_events;
mod open_files;
mod outbox;
mod places;
mod worker;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use rustix::event::{EventfdFlags, eventfd};

use self::{ears::Ears, outbox::Outbox, worker::Worker};
use super::{Round, Target, WatchOptions};
use crate::host::Hierarchy;

/// Why nobody watches.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("no eventfd for the watcher of containers' resources: {0}")]
    Event(#[source] io::Error),
    #[error("no epoll for the watcher of containers' resources: {0}")]
    Epoll(#[source] io::Error),
    #[error("no thread for the watcher of containers' resources: {0}")]
    Thread(#[source] io::Error),
}

/// What was lost on the way, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The kernel's queue of changed files was full: all targets were read.
    pub overflows: u64,
    /// Writes to limits that the pipeline did not take in time.
    pub writes_dropped: u64,
    /// Samples of containers that the pipeline did not take in time.
    pub samples_dropped: u64,
    /// Directories that could not be listened to (inotify's limit on watches).
    pub unheard: u64,
}

/// The thread ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// All targets, when they have changed.
    targets: Mutex<Option<Vec<Target>>>,
    outbox: Mutex<Outbox>,
    /// Wakes the thread.
    wake: OwnedFd,
    /// Readable while the outbox is not empty. Changed only under its lock.
    ready: OwnedFd,
    stop: AtomicBool,
    knows_writers: bool,
    overflows: AtomicU64,
    writes_dropped: AtomicU64,
    samples_dropped: AtomicU64,
    unheard: AtomicU64,
}

impl Watcher {
    /// For the hierarchies of this machine. Raises the soft limit on open files to the hard one.
    pub fn start(hierarchies: Vec<Hierarchy>, options: WatchOptions) -> Result<Watcher, WatchError> {
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| WatchError::Event(error.into()))
        };
        let with_limits = worker::with_limits(&hierarchies);
        let ears = Ears::new(&with_limits);
        let shared = Arc::new(Shared {
            targets: Mutex::default(),
            outbox: Mutex::default(),
            wake: event()?,
            ready: event()?,
            stop: AtomicBool::new(false),
            knows_writers: ears.know_writers(),
            overflows: AtomicU64::new(0),
            writes_dropped: AtomicU64::new(0),
            samples_dropped: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
        });
        let worker = Worker::new(Arc::clone(&shared), &hierarchies, with_limits, ears, options)
            .map_err(WatchError::Epoll)?;
        thread::Builder::new()
            .name("limits".into())
            .spawn(move || worker.run())
            .map_err(WatchError::Thread)?;
        Ok(Watcher { shared })
    }

    /// All containers that are to be watched; who is not named any more is forgotten. New ones are read at once.
    pub fn watch(&self, targets: Vec<Target>) {
        *self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner) = Some(targets);
        signal(&self.shared.wake);
    }

    /// What there is to be told. Never waits: while something is being put in there is nothing, and the descriptor stays
    /// readable.
    pub fn take(&self) -> Option<Round> {
        let mut outbox = match self.shared.outbox.try_lock() {
            Ok(outbox) => outbox,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        clear(&self.shared.ready);
        outbox.take()
    }

    /// Pids of writers are known, where they are of the agent's pid namespace or of one below.
    pub fn sees_writers(&self) -> bool {
        self.shared.knows_writers
    }

    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        Counts {
            overflows: shared.overflows.load(Ordering::Relaxed),
            writes_dropped: shared.writes_dropped.load(Ordering::Relaxed),
            samples_dropped: shared.samples_dropped.load(Ordering::Relaxed),
            unheard: shared.unheard.load(Ordering::Relaxed),
        }
    }
}

/// Readable while there is something to take.
impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.ready.as_raw_fd()
    }
}

impl Drop for Watcher {
    /// Does not wait for the thread: it may be in the middle of a read.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        signal(&self.shared.wake);
    }
}

impl Shared {
    fn new_targets(&self) -> Option<Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, round: Round) {
        if round == Round::default() {
            return;
        }
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = outbox.push(round);
        signal(&self.ready);
        drop(outbox);
        self.writes_dropped.fetch_add(dropped.writes, Ordering::Relaxed);
        self.samples_dropped.fetch_add(dropped.samples, Ordering::Relaxed);
    }
}

fn signal(event: &OwnedFd) {
    // An eventfd that is so full that it takes no more is readable already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

fn clear(event: &OwnedFd) {
    // One that was not signalled is clear already.
    let _ = rustix::io::read(event, &mut [0; 8]);
}
