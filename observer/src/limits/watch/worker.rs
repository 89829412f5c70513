//! The thread: what it waits for, and what it reads then.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};

use super::{
    Shared, clear,
    due::Due,
    ears::{Ears, Heard},
    files::Touch,
    memory_events::{self, MemoryEvents},
    open_files,
    outbox::{self, MAX_WRITES},
    places::{PlaceId, Places},
};
use crate::{
    host::{
        Hierarchy,
        resources::{Parts, Reader},
    },
    limits::{LimitWrite, Round, Sample, Target, WatchOptions},
    model::{Clock, ContainerKey, resources::Resources},
    telemetry::log,
};

/// Between two readings of the kernel's queue: writes of one file by one process become one event meanwhile.
const REST: Duration = Duration::from_millis(10);
/// A write is told with the samples that were read after it, and later than this without.
const MAX_HELD: Duration = Duration::from_millis(250);

/// What woke the thread; the tokens of memory's eventfds begin after these.
const WAKE: u64 = 0;
const EARS: u64 = 1;

pub(super) struct Worker {
    shared: Arc<Shared>,
    options: WatchOptions,
    reader: Reader,
    ears: Ears,
    /// When the kernel's queue is to be listened to again.
    ears_rest: Option<Instant>,
    epoll: OwnedFd,
    /// Mount points of hierarchies with limits.
    mounts: HashMap<u32, PathBuf>,
    /// v1's, of the memory controller.
    memory: Option<u32>,
    places: Places,
    /// In an order of their own, so that they are read in the same one each time.
    watched: BTreeMap<ContainerKey, Watched>,
    tokens: HashMap<u64, ContainerKey>,
    last_token: u64,
    /// Writes whose targets have not been read since, and when the first of them was noticed.
    writes: Vec<LimitWrite>,
    held_since: Option<Instant>,
    told: Told,
}

#[derive(Debug)]
struct Watched {
    target: Target,
    due: Due,
    memory: MemoryWatch,
    complained: bool,
}

/// A target's eventfd on v1.
#[derive(Debug)]
enum MemoryWatch {
    /// Not tried yet, or in vain because the cgroup was not there.
    None,
    /// Refused with this threshold: not to be tried again until it is another one.
    Refused(Option<u64>),
    At {
        threshold: Option<u64>,
        token: u64,
        events: MemoryEvents,
    },
}

/// What the log was told already.
#[derive(Debug, Default)]
struct Told {
    no_memory_events: bool,
    unheard: bool,
}

/// Those hierarchies that have a controller with limits.
pub(super) fn with_limits(hierarchies: &[Hierarchy]) -> Vec<Hierarchy> {
    const LIMITING: [&str; 6] = ["memory", "cpu", "pids", "blkio", "cpuset", "hugetlb"];
    let has = |hierarchy: &&Hierarchy| match hierarchy.id {
        // A v2 hierarchy beside v1 may have none; one that does not say is taken to have some.
        0 => std::fs::read_to_string(hierarchy.mount.join("cgroup.controllers"))
            .map_or(true, |listed| !listed.trim_ascii().is_empty()),
        _ => hierarchy.controllers.iter().any(|name| LIMITING.contains(&name.as_str())),
    };
    hierarchies.iter().filter(has).cloned().collect()
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        hierarchies: &[Hierarchy],
        with_limits: Vec<Hierarchy>,
        ears: Ears,
        options: WatchOptions,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        if let Some(queue) = ears.as_fd() {
            epoll::add(&epoll, queue, epoll::EventData::new_u64(EARS), once())?;
        }
        let v1_memory = |hierarchy: &&Hierarchy| {
            hierarchy.id != 0 && hierarchy.controllers.iter().any(|name| name == "memory")
        };
        Ok(Worker {
            shared,
            options,
            reader: Reader::new(hierarchies).keep_open(open_files::allowance()),
            ears,
            ears_rest: None,
            epoll,
            memory: with_limits.iter().find(v1_memory).map(|hierarchy| hierarchy.id),
            mounts: with_limits.into_iter().map(|hierarchy| (hierarchy.id, hierarchy.mount)).collect(),
            places: Places::default(),
            watched: BTreeMap::new(),
            tokens: HashMap::new(),
            last_token: EARS,
            writes: Vec::new(),
            held_since: None,
            told: Told::default(),
        })
    }

    /// Until the watcher is dropped.
    pub(super) fn run(mut self) {
        let every = Duration::from_secs(self.options.poll_seconds.max(1));
        let mut next_poll = Instant::now() + every;
        let mut events = Vec::with_capacity(64);
        loop {
            match self.wait(next_poll, &mut events) {
                Ok(()) => {}
                Err(error) => return log::error!("containers' resources are not watched any more", error),
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            for event in events.drain(..) {
                match event.data.u64() {
                    WAKE => clear(&self.shared.wake),
                    EARS => self.hear(now),
                    token => self.memory_event(token, now),
                }
            }
            if self.ears_rest.is_some_and(|until| until <= now) {
                self.listen_again();
            }
            if let Some(targets) = self.shared.new_targets() {
                self.retarget(targets, now);
            }
            let poll = next_poll <= now;
            if poll {
                // After a pause there is one poll, not all that were missed.
                next_poll = if next_poll + every > now { next_poll + every } else { now + every };
                self.reader.new_round();
            }
            self.read(now, poll);
        }
    }

    /// Waits for the kernel, the pipeline, or the clock.
    fn wait(&self, next_poll: Instant, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let held = self.held_since.map(|since| since + MAX_HELD);
        let due = self.watched.values().filter_map(|watched| watched.due.at());
        let until = due.chain(held).chain(self.ears_rest).fold(next_poll, Instant::min);
        let wait = until.saturating_duration_since(Instant::now());
        // Where the kernel counts in milliseconds it must not wake up too early, again and again.
        let wait = Duration::from_millis(wait.as_micros().div_ceil(1000) as u64);
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn retarget(&mut self, targets: Vec<Target>, now: Instant) {
        let mut old = std::mem::take(&mut self.watched);
        let mut new = Vec::new();
        for target in targets {
            match old.remove(&target.container) {
                Some(watched) if watched.target == target => {
                    self.watched.insert(target.container, watched);
                }
                Some(watched) => {
                    old.insert(target.container, watched);
                    new.push(target);
                }
                None => new.push(target),
            }
        }
        for watched in old.into_values() {
            self.forget_memory(watched.memory);
            for place in self.places.remove(&watched.target) {
                self.ears.forget(place);
            }
        }
        for target in new {
            for place in self.places.add(&target, |hierarchy| self.mounts.contains_key(&hierarchy)) {
                self.listen(place);
            }
            let due = Due::new(now);
            let watched = Watched { target, due, memory: MemoryWatch::None, complained: false };
            self.watched.insert(watched.target.container, watched);
        }
    }

    fn listen(&mut self, id: PlaceId) {
        let Some(place) = self.places.get(id) else { return };
        let Some(mount) = self.mounts.get(&place.hierarchy) else { return };
        let directory = directory(mount, &place.path);
        match self.ears.listen(id, place.hierarchy, &directory) {
            Ok(()) => {}
            // Gone already: it will not be named any more soon.
            Err(error) if is_gone(&error) => self.ears.forget(id),
            Err(error) => {
                self.shared.unheard.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.told.unheard, true) {
                    let directory = directory.display();
                    log::warn!("changes of some limits are seen at the next poll only", directory, error);
                }
            }
        }
    }

    fn hear(&mut self, now: Instant) {
        self.ears_rest = Some(now + REST);
        let mut heard = Vec::new();
        let lost = self.ears.hear(&mut heard).unwrap_or_else(|error| {
            log::debug!("what changed in cgroups could not be read", error);
            true
        });
        let time_ns = Clock::boot_ns();
        for heard in heard {
            self.handle(heard, time_ns, now);
        }
        if lost {
            self.shared.overflows.fetch_add(1, Ordering::Relaxed);
            self.watched.values_mut().for_each(|watched| watched.due.touch_unheard(now));
        }
    }

    fn handle(&mut self, heard: Heard, time_ns: u64, now: Instant) {
        let Some(place) = self.places.get(heard.place) else { return };
        let mut touch = |keys: &[ContainerKey]| {
            for key in keys {
                if let Some(watched) = self.watched.get_mut(key) {
                    watched.due.touch(heard.touch, now);
                }
            }
        };
        touch(&place.own);
        if heard.touch == Touch::Notice {
            return;
        }
        // A limit binds whatever is below.
        touch(&place.below);
        let write = LimitWrite {
            time_ns,
            pid: heard.pid,
            hierarchy: place.hierarchy,
            path: place.path.as_ref().to_owned(),
            file: heard.file,
        };
        let same = |other: &LimitWrite| {
            (other.pid, other.hierarchy, &other.path, &other.file)
                == (write.pid, write.hierarchy, &write.path, &write.file)
        };
        // Truncated and written, or written again before anybody has looked.
        if !self.writes.iter().any(same) {
            let excess = outbox::extend(&mut self.writes, vec![write]);
            self.shared.writes_dropped.fetch_add(excess, Ordering::Relaxed);
            self.held_since.get_or_insert(now);
        }
    }

    fn listen_again(&mut self) {
        self.ears_rest = None;
        if let Some(queue) = self.ears.as_fd() {
            self.arm(queue, EARS);
        }
    }

    /// Reads what is due, or all, and hands it over.
    fn read(&mut self, now: Instant, all: bool) {
        let mut samples = Vec::new();
        let due: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watched)| all || watched.due.is_at(now))
            .map(|(key, _)| *key)
            .collect();
        if !due.is_empty() {
            self.reader.forget_limits_above();
        }
        for key in due {
            samples.extend(self.read_one(key));
        }
        let owed = self.watched.values().any(|watched| watched.due.owes_limit());
        let overdue = self.held_since.is_some_and(|since| since + MAX_HELD <= now);
        let writes = if !owed || overdue || self.writes.len() >= MAX_WRITES {
            self.held_since = None;
            std::mem::take(&mut self.writes)
        } else {
            Vec::new()
        };
        self.shared.put(Round { samples, writes });
    }

    fn read_one(&mut self, key: ContainerKey) -> Option<Sample> {
        let watched = self.watched.get_mut(&key)?;
        // What happens from now on is another event.
        if let MemoryWatch::At { events, token, .. } = &watched.memory {
            events.clear();
            arm(&self.epoll, events, *token);
        }
        let whole = watched.due.read(Instant::now()) || self.told.unheard || self.ears.are_none();
        let parts = if whole { Parts::ALL } else { Parts::USAGE };
        let time_ns = Clock::boot_ns();
        let (resources, unread) = self.reader.read(&watched.target.cgroups, parts);
        if let Some(unread) = unread.first()
            && !std::mem::replace(&mut watched.complained, true)
        {
            log::debug!("a cgroup's file could not be read", what = unread.what, why = unread.why);
        }
        self.watch_memory(key, &resources);
        (resources != Resources::default()).then_some(Sample { container: key, time_ns, whole, resources })
    }

    /// Sees to it that v1 tells when memory comes near its limit as it is now.
    fn watch_memory(&mut self, key: ContainerKey, resources: &Resources) {
        let Some(hierarchy) = self.memory else { return };
        let Some(mount) = self.mounts.get(&hierarchy) else { return };
        let Some(watched) = self.watched.get_mut(&key) else { return };
        let Some(memory) = &resources.memory else {
            let old = std::mem::replace(&mut watched.memory, MemoryWatch::None);
            return self.forget_memory(old);
        };
        let threshold = memory_events::threshold(memory.limit_bytes, self.options.memory_near_percent);
        match &watched.memory {
            MemoryWatch::At { threshold: old, .. } | MemoryWatch::Refused(old) if *old == threshold => return,
            _ => {}
        }
        let Some((_, path)) = watched.target.cgroups.iter().find(|(id, _)| *id == hierarchy) else { return };
        let new = match MemoryEvents::register(&directory(mount, path), threshold) {
            Ok(events) => {
                self.last_token += 1;
                let token = self.last_token;
                let data = epoll::EventData::new_u64(token);
                if epoll::add(&self.epoll, &events, data, once()).is_ok() {
                    self.tokens.insert(token, key);
                    MemoryWatch::At { threshold, token, events }
                } else {
                    MemoryWatch::Refused(threshold)
                }
            }
            Err(error) if is_gone(&error) && !directory(mount, path).exists() => MemoryWatch::None,
            Err(error) => {
                if !std::mem::replace(&mut self.told.no_memory_events, true) {
                    log::debug!("the kernel does not tell when memory comes near its limit", error);
                }
                MemoryWatch::Refused(threshold)
            }
        };
        let old = std::mem::replace(&mut watched.memory, new);
        self.forget_memory(old);
    }

    fn forget_memory(&mut self, memory: MemoryWatch) {
        if let MemoryWatch::At { token, .. } = memory {
            self.tokens.remove(&token);
        }
    }

    fn memory_event(&mut self, token: u64, now: Instant) {
        // Not armed again until the target has been read: a container may go to and fro over its threshold all the time.
        if let Some(watched) = self.tokens.get(&token).and_then(|key| self.watched.get_mut(key)) {
            watched.due.touch_twice(now);
        }
    }

    fn arm(&self, descriptor: impl AsFd, token: u64) {
        arm(&self.epoll, descriptor, token);
    }
}

/// Told once, until it is asked for again.
fn once() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::ONESHOT
}

fn arm(epoll: &OwnedFd, descriptor: impl AsFd, token: u64) {
    if let Err(error) = epoll::modify(epoll, descriptor, epoll::EventData::new_u64(token), once()) {
        log::debug!("a descriptor is not listened to any more", error);
    }
}

fn directory(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_without_limits_are_not_listened_to() {
        let root = std::env::temp_dir().join(format!("observer-with-limits-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("make a directory");
        let hierarchy = |id, controllers: &[&str]| Hierarchy {
            id,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            mount: root.clone(),
        };
        let all = [
            hierarchy(0, &[]),
            hierarchy(1, &["cpu", "cpuacct"]),
            hierarchy(2, &["freezer"]),
            hierarchy(3, &["name=systemd"]),
            hierarchy(4, &["memory"]),
        ];
        let ids = || with_limits(&all).iter().map(|hierarchy| hierarchy.id).collect::<Vec<_>>();
        assert_eq!(ids(), [0, 1, 4], "a v2 hierarchy that does not say");
        std::fs::write(root.join("cgroup.controllers"), "\n").expect("write");
        assert_eq!(ids(), [1, 4]);
        std::fs::write(root.join("cgroup.controllers"), "memory pids\n").expect("write");
        assert_eq!(ids(), [0, 1, 4]);
        std::fs::remove_dir_all(root).expect("remove");
    }
}
