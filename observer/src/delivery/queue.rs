//! The queue that all sinks read, each at its own pace: a window of memory over the store.
//!
//! An alert has a number from the moment it comes. It is in memory until it is on the disk, and stays there, bounded, while
//! the disk does not take it; sinks see it at once in any case. So a disk that is full or slow delays nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::store::{MAX_ALERT_BYTES, Opened, Record, Store, StoreError};
use crate::{
    sinks::{Subscription, TailItem},
    telemetry::{
        Metrics, log,
        metrics::{DeliveryMetrics, DropReason, StoreMetrics},
    },
};

/// Commits are no closer together: each waits for the disk.
const GROUP: Duration = Duration::from_millis(50);
/// How often where the sinks are is written down. Killed in between, that much is delivered twice.
const CURSORS: Duration = Duration::from_secs(1);
/// How often a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// What is kept while the disk takes nothing.
const MEMORY_ALERTS: usize = 4096;
const MEMORY_BYTES: u64 = 8 << 20;
/// Written in one commit.
const COMMIT_ALERTS: usize = 1024;
/// The same complaint is not made more often.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Where the store is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    pub max_bytes: u64,
}

/// One end for the keeper, one for each sink.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The highest number; sinks wait for it to rise.
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    store: Option<Arc<Store>>,
    /// The store could be opened since the agent started, so the cursors are right.
    known: bool,
    /// Raised when numbers change their meaning: what a sink has taken before does not count then.
    epoch: u64,
    /// What is not on the disk yet, or cannot be.
    memory: VecDeque<Record>,
    memory_cost: u64,
    last: u64,
    sinks: BTreeMap<String, Reader>,
    /// Somebody has moved since the last commit.
    moved: bool,
}

struct Reader {
    /// It has everything up to this number.
    cursor: u64,
    /// While the store cannot be read: what it has of the memory beyond. Not written down, so what it has not of the store
    /// comes when that can be read again.
    beyond: u64,
    /// Alerts that it does not have.
    pending: u64,
    metrics: DeliveryMetrics,
}

impl Reader {
    fn position(&self) -> u64 {
        self.cursor.max(self.beyond)
    }
}

/// What a sink is to take next.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Why nothing comes from the store.
    pub error: Option<StoreError>,
    epoch: u64,
    stored: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves it half done.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next alerts for a sink: up to `count`, no more than `bytes` but at least one.
    pub fn next(&self, name: &str, count: usize, bytes: u64) -> Batch {
        // Memory first: what goes to the disk meanwhile is then in both, and not in none.
        let (memory, store, cursor, mut batch) = {
            let state = self.lock();
            let Some(reader) = state.sinks.get(name) else { return Batch::default() };
            let stored = state.store.is_some() && state.known;
            let cursor = if stored { reader.cursor } else { reader.position() };
            let memory: Vec<Record> =
                state.memory.iter().filter(|it| it.seq > cursor).take(count).cloned().collect();
            (memory, state.store.clone(), cursor, Batch { epoch: state.epoch, stored, ..Batch::default() })
        };
        match store.map(|store| store.read(cursor, count, bytes)) {
            Some(Ok(records)) => batch.records = records,
            // What comes after in memory must not overtake, or it would never be read.
            Some(Err(error)) => return Batch { error: Some(error), ..batch },
            None => {}
        }
        let mut size: u64 = batch.records.iter().map(Record::cost).sum();
        let last = batch.records.last().map_or(cursor, |it| it.seq);
        for record in memory.into_iter().filter(|it| it.seq > last) {
            size += record.cost();
            if batch.records.len() == count || (size > bytes && !batch.records.is_empty()) {
                break;
            }
            batch.records.push(record);
        }
        batch
    }

    /// The sink has what it was given, or will never take it.
    pub fn taken(&self, name: &str, batch: &Batch) {
        let Some(last) = batch.records.last() else { return };
        let mut state = self.lock();
        if state.epoch != batch.epoch {
            return;
        }
        if let Some(reader) = state.sinks.get_mut(name) {
            let place = if batch.stored { &mut reader.cursor } else { &mut reader.beyond };
            *place = last.seq.max(*place);
            reader.pending = reader.pending.saturating_sub(batch.records.len() as u64);
            reader.metrics.backlog(reader.pending);
            state.moved = true;
        }
    }

    /// A new sink reads what comes from now on; one that was there before goes on where it was.
    pub fn join(&self, name: &str, metrics: DeliveryMetrics) {
        let mut state = self.lock();
        let last = state.last;
        state.moved = true;
        let reader = state.sinks.entry(name.to_owned()).or_insert_with(|| Reader {
            cursor: last,
            beyond: 0,
            pending: 0,
            metrics: metrics.clone(),
        });
        reader.metrics = metrics;
        reader.metrics.backlog(reader.pending);
    }

    /// Nothing is kept for this sink any more.
    pub fn leave(&self, name: &str) {
        let mut state = self.lock();
        state.sinks.remove(name);
        state.moved = true;
    }

    /// To wait for something new.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.shared.last.subscribe()
    }

    fn add(&self, json: Bytes) {
        let mut state = self.lock();
        state.last += 1;
        let record = Record { seq: state.last, json };
        state.memory_cost += record.cost();
        state.memory.push_back(record);
        for reader in state.sinks.values_mut() {
            reader.pending += 1;
            reader.metrics.backlog(reader.pending);
        }
        let last = state.last;
        drop(state);
        self.shared.last.send_replace(last);
    }
}

impl State {
    fn pop(&mut self) -> Option<Record> {
        let record = self.memory.pop_front()?;
        self.memory_cost -= record.cost();
        Some(record)
    }

    /// Counts numbers that are gone for those sinks that had not got there, and says whether there was one.
    fn count_gone(&mut self, gone: &[u64], reason: DropReason) -> bool {
        let mut affected = false;
        for reader in self.sinks.values_mut() {
            let count = gone.iter().filter(|seq| **seq > reader.position()).count() as u64;
            reader.metrics.sink.dropped(reason, count);
            reader.pending = reader.pending.saturating_sub(count);
            reader.metrics.backlog(reader.pending);
            affected |= count > 0;
        }
        affected
    }

    /// What all sinks have.
    fn taken(&self) -> u64 {
        self.sinks.values().map(Reader::position).min().unwrap_or(self.last)
    }
}

/// Takes alerts from the pipeline's fan-out, numbers them, and writes them down.
pub struct Keeper {
    queue: Queue,
    alerts: Subscription,
    place: Place,
    metrics: StoreMetrics,
    all_metrics: Metrics,
    cost: u64,
    /// Since when the disk does not take what it is given; `None` while it does.
    failing: Option<Instant>,
    last_commit: Instant,
    complained: Option<Instant>,
    /// Dropped since the last complaint.
    dropped: u64,
}

impl Keeper {
    /// Opens the store for the sinks of these names. If that fails, it is told, and alerts are kept in memory. To be called
    /// where it may wait for the disk.
    pub fn open(place: Place, alerts: Subscription, metrics: &Metrics, sinks: &[&str]) -> (Keeper, Queue) {
        let queue =
            Queue { shared: Arc::new(Shared { state: Mutex::default(), last: watch::Sender::new(0) }) };
        let mut keeper = Keeper {
            queue: queue.clone(),
            alerts,
            place,
            metrics: metrics.store(),
            all_metrics: metrics.clone(),
            cost: 0,
            failing: None,
            last_commit: Instant::now(),
            complained: None,
            dropped: 0,
        };
        // Numbers go up from one run to the next also if the store cannot be read, and after numbers that were never
        // written down.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_micros() as u64);
        keeper.queue.lock().last = now;
        match Store::open(&keeper.place.path, keeper.place.max_bytes, sinks) {
            Ok(opened) => {
                if let Err(error) = keeper.adopt(opened, sinks, metrics) {
                    keeper.fail(&error);
                }
            }
            Err(error) => keeper.fail(&error),
        }
        (keeper, queue)
    }

    /// Makes an opened store the queue's.
    fn adopt(
        &mut self,
        opened: (Store, Opened),
        sinks: &[&str],
        metrics: &Metrics,
    ) -> Result<(), StoreError> {
        let (store, opened) = opened;
        if let Some(found) = opened.salvaged {
            log::error!(
                "the store was damaged, and was made anew from what could be found in it",
                path = self.place.path.display(),
                found,
            );
            self.metrics.damaged();
        }
        let contents = store.contents()?;
        let mut state = self.queue.lock();
        let shifted = !state.known && state.memory.front().is_some_and(|it| it.seq <= contents.last);
        if shifted {
            // The clock was set back before this run began.
            let shift = contents.last;
            state.memory.iter_mut().for_each(|it| it.seq += shift);
            state.last += shift;
            state.epoch += 1;
        }
        state.last = state.last.max(contents.last);
        if !state.known {
            state.epoch += 1;
            for name in sinks {
                let first = state.memory.front().map_or(state.last, |it| it.seq - 1);
                let position = state.sinks.get(*name).map(Reader::position);
                // What it has of the memory counts, unless something older has come to light.
                let cursor = match contents.cursors.get(*name) {
                    Some(cursor) if store.count_after(*cursor)? > 0 => *cursor,
                    _ => position.filter(|_| !shifted).unwrap_or(first),
                };
                let pending = store.count_after(cursor)? + count_after(&state.memory, cursor);
                let reader = state.sinks.entry((*name).to_owned()).or_insert_with(|| Reader {
                    cursor,
                    beyond: 0,
                    pending: 0,
                    metrics: metrics.delivery(name),
                });
                (reader.cursor, reader.beyond) = (cursor, 0);
                reader.pending = pending;
                reader.metrics.backlog(reader.pending);
            }
        }
        state.known = true;
        state.moved = true;
        state.store = Some(Arc::new(store));
        let last = state.last;
        drop(state);
        self.cost = contents.cost;
        self.metrics.bytes(self.cost);
        self.queue.shared.last.send_replace(last);
        Ok(())
    }

    /// Runs until the fan-out is closed and everything is written, or cannot be.
    pub async fn run(mut self) -> Keeper {
        loop {
            let open = self.gather().await;
            self = match tokio::task::spawn_blocking(move || {
                self.write();
                self
            })
            .await
            {
                Ok(keeper) => keeper,
                // Only a panic, which ends a released agent anyway.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            if !open {
                return self;
            }
        }
    }

    /// Waits until there is something to write. False at the end.
    async fn gather(&mut self) -> bool {
        let mut open = true;
        let idle = |keeper: &Keeper| {
            let state = keeper.queue.lock();
            match (keeper.failing, state.moved) {
                (Some(since), _) => RETRY.saturating_sub(since.elapsed()),
                (None, true) => CURSORS.saturating_sub(keeper.last_commit.elapsed()),
                (None, false) => CURSORS,
            }
        };
        let mut got = 0;
        match tokio::time::timeout(idle(self), self.alerts.recv()).await {
            Ok(Some(item)) => {
                self.take(item);
                got += 1;
            }
            Ok(None) => return false,
            Err(_) => {}
        }
        // What comes within a moment shares a commit.
        let until = tokio::time::Instant::from_std(self.last_commit + GROUP);
        while got < COMMIT_ALERTS && open {
            match self.alerts.try_recv() {
                Ok(item) => {
                    self.take(item);
                    got += 1;
                    continue;
                }
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => open = false,
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => {}
            }
            if got == 0 {
                break;
            }
            match tokio::time::timeout_at(until, self.alerts.recv()).await {
                Ok(Some(item)) => {
                    self.take(item);
                    got += 1;
                }
                Ok(None) => open = false,
                Err(_) => break,
            }
        }
        open
    }

    fn take(&mut self, item: TailItem) {
        match item {
            TailItem::Alert(alert) => match serde_json::to_vec(&*alert) {
                Ok(json) if json.len() <= MAX_ALERT_BYTES => self.queue.add(json.into()),
                // An alert is bounded far below this in all its parts.
                _ => self.lose(1, DropReason::TooLarge),
            },
            TailItem::Missed(count) => self.lose(count, DropReason::QueueFull),
            TailItem::Event(_) => {}
        }
        self.bound_memory();
    }

    /// Told and counted for all sinks: none of them gets these.
    fn lose(&mut self, count: u64, reason: DropReason) {
        let state = self.queue.lock();
        for reader in state.sinks.values() {
            reader.metrics.sink.dropped(reason, count);
        }
        drop(state);
        self.complain(count, reason);
    }

    fn bound_memory(&mut self) {
        if self.failing.is_none() {
            // The next commit, at most so many alerts from here, takes them.
            return;
        }
        let mut state = self.queue.lock();
        // What all sinks have need not wait for a disk.
        let taken = state.taken();
        while state.memory.front().is_some_and(|it| it.seq <= taken) {
            state.pop();
        }
        let mut gone = Vec::new();
        while state.memory.len() > MEMORY_ALERTS || state.memory_cost > MEMORY_BYTES {
            let Some(record) = state.pop() else { break };
            gone.push(record.seq);
        }
        let affected = state.count_gone(&gone, DropReason::MemoryFull);
        drop(state);
        if affected {
            self.complain(gone.len() as u64, DropReason::MemoryFull);
        }
    }

    /// Says that alerts are lost: at once, and then not for each of them.
    fn complain(&mut self, count: u64, reason: DropReason) {
        self.dropped += count;
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            let count = std::mem::take(&mut self.dropped);
            log::error!("alerts are lost before a sink took them", count, reason = reason.name());
        }
    }

    /// Writes what waits, and where the sinks are.
    fn write(&mut self) {
        self.bound_memory();
        if self.failing.is_some_and(|since| since.elapsed() < RETRY) {
            return;
        }
        if self.queue.lock().store.is_none()
            && let Err(error) = self.reopen()
        {
            return self.fail(&error);
        }
        let (records, cursors, store) = {
            let mut state = self.queue.lock();
            if state.memory.is_empty() && !(state.moved && self.last_commit.elapsed() >= CURSORS) {
                return;
            }
            let Some(store) = state.store.clone() else { return };
            state.moved = false;
            let cursors: BTreeMap<String, u64> =
                state.sinks.iter().map(|(name, reader)| (name.clone(), reader.cursor)).collect();
            (state.memory.iter().cloned().collect::<Vec<_>>(), cursors, store)
        };
        self.last_commit = Instant::now();
        let mut cost = self.cost;
        match store.commit(&records, Some(&cursors), &mut cost) {
            Ok(committed) => {
                self.cost = cost;
                self.metrics.bytes(cost);
                self.metrics.stored(records.len());
                let mut state = self.queue.lock();
                for _ in &records {
                    state.pop();
                }
                let affected = state.count_gone(&committed.evicted, DropReason::StoreFull);
                drop(state);
                if affected {
                    self.complain(committed.evicted.len() as u64, DropReason::StoreFull);
                }
                if self.failing.take().is_some() {
                    log::info!("alerts are stored on the disk again", path = self.place.path.display());
                }
            }
            Err(error) => {
                drop(store);
                // After an error redb does nothing more with what it has open. Reading may well go on with a new one: a disk
                // that is full can be read.
                let _ = self.reopen();
                self.fail(&error);
            }
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let store = self.queue.lock().store.take();
        if let Some(store) = store {
            // Sinks hold it only while they read; the file is locked until then.
            let deadline = Instant::now() + Duration::from_secs(1);
            while Arc::strong_count(&store) > 1 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let names: Vec<String> = self.queue.lock().sinks.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let opened = Store::open(&self.place.path, self.place.max_bytes, &names)?;
        let metrics = self.all_metrics.clone();
        self.adopt(opened, &names, &metrics)
    }

    fn fail(&mut self, error: &StoreError) {
        self.metrics.failed();
        if self.failing.is_none() {
            log::error!(
                "alerts cannot be stored on the disk; they are kept in memory, and lost if the agent is killed",
                error,
            );
        }
        self.failing = Some(Instant::now());
        self.bound_memory();
    }

    /// Writes where the sinks have got to at the end. Returns how many alerts are in memory only, and not with all sinks.
    pub fn finish(mut self) -> usize {
        // The end waits for no interval.
        self.last_commit = self.last_commit.checked_sub(CURSORS).unwrap_or(self.last_commit);
        self.failing = self.failing.and_then(|since| since.checked_sub(RETRY));
        self.write();
        let state = self.queue.lock();
        let taken = state.taken();
        state.memory.iter().filter(|it| it.seq > taken).count()
    }
}

fn count_after(memory: &VecDeque<Record>, cursor: u64) -> u64 {
    memory.iter().filter(|it| it.seq > cursor).count() as u64
}
