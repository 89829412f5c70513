//! inotify on each directory: for kernels and privileges that fanotify is not to be had with. It does not know who wrote.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use super::{ears::Heard, places::PlaceId};

/// Read in one go.
const BUFFER: usize = 16 << 10;
/// Events taken before something else gets its turn.
const MAX_EVENTS: usize = 4096;

#[derive(Debug)]
pub(super) struct Inotify {
    queue: OwnedFd,
    places: HashMap<i32, PlaceId>,
    watches: HashMap<PlaceId, i32>,
}

impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Inotify { queue, places: HashMap::new(), watches: HashMap::new() })
    }

    pub(super) fn listen(&mut self, id: PlaceId, directory: &Path) -> io::Result<()> {
        let watch = inotify::add_watch(&self.queue, directory, WatchFlags::MODIFY | WatchFlags::ONLYDIR)?;
        if self.watches.get(&id).is_some_and(|old| *old != watch) {
            self.forget(id);
        }
        self.watches.insert(id, watch);
        self.places.insert(watch, id);
        Ok(())
    }

    /// Of a removed directory, too: the kernel does not do it by itself in kernfs.
    pub(super) fn forget(&mut self, id: PlaceId) {
        if let Some(watch) = self.watches.remove(&id)
            && self.places.get(&watch) == Some(&id)
        {
            self.places.remove(&watch);
            // It may be gone already.
            let _ = inotify::remove_watch(&self.queue, watch);
        }
    }

    /// Takes what there is, or a good part of it. True if some was lost.
    pub(super) fn hear(&mut self, heard: &mut Vec<Heard>) -> io::Result<bool> {
        let mut lost = false;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.queue, &mut buffer);
        for _ in 0..MAX_EVENTS {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            if event.events().contains(ReadFlags::IGNORED) {
                if let Some(place) = self.places.remove(&event.wd()) {
                    self.watches.remove(&place);
                }
                continue;
            }
            let Some(place) = self.places.get(&event.wd()) else { continue };
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
            heard.extend(Heard::new(*place, name, None));
        }
        Ok(lost)
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
