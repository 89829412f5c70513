//! What tells that a file of a cgroup changed: fanotify, else inotify, else nothing, and then there is the poll.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use super::{
    fanotify::Fanotify,
    files::{self, Touch},
    inotify::Inotify,
    places::PlaceId,
};
use crate::{host::Hierarchy, telemetry::log};

/// A file of a cgroup changed that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) place: PlaceId,
    pub(super) file: String,
    pub(super) touch: Touch,
    /// Who wrote, in the agent's pid namespace.
    pub(super) pid: Option<u32>,
}

impl Heard {
    /// `None` for files that do not matter.
    pub(super) fn new(place: PlaceId, file: &str, pid: Option<u32>) -> Option<Self> {
        let touch = files::touch(file)?;
        // The kernel's notices are made by one of its workers.
        let pid = pid.filter(|_| touch == Touch::Limit);
        Some(Heard { place, file: file.to_owned(), touch, pid })
    }
}

#[derive(Debug)]
pub(super) enum Ears {
    Fanotify(Fanotify),
    Inotify(Inotify),
    None,
}

impl Ears {
    pub(super) fn new(hierarchies: &[Hierarchy]) -> Self {
        match Fanotify::new(hierarchies.iter()) {
            Ok(fanotify) => return Ears::Fanotify(fanotify),
            Err(error) => log::info!("who writes to limits is not known: fanotify is not to be had", error),
        }
        match Inotify::new() {
            Ok(inotify) => Ears::Inotify(inotify),
            Err(error) => {
                log::warn!("changes of limits are seen at the next poll only", error);
                Ears::None
            }
        }
    }

    pub(super) fn know_writers(&self) -> bool {
        matches!(self, Ears::Fanotify(_))
    }

    pub(super) fn are_none(&self) -> bool {
        matches!(self, Ears::None)
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Ears::Fanotify(fanotify) => Some(fanotify.as_fd()),
            Ears::Inotify(inotify) => Some(inotify.as_fd()),
            Ears::None => None,
        }
    }

    pub(super) fn listen(&mut self, id: PlaceId, hierarchy: u32, directory: &Path) -> io::Result<()> {
        match self {
            Ears::Fanotify(fanotify) => fanotify.listen(id, hierarchy, directory),
            Ears::Inotify(inotify) => inotify.listen(id, directory),
            Ears::None => Ok(()),
        }
    }

    pub(super) fn forget(&mut self, id: PlaceId) {
        match self {
            Ears::Fanotify(fanotify) => fanotify.forget(id),
            Ears::Inotify(inotify) => inotify.forget(id),
            Ears::None => {}
        }
    }

    /// Takes what there is, or a good part of it. True if some was lost.
    pub(super) fn hear(&mut self, heard: &mut Vec<Heard>) -> io::Result<bool> {
        match self {
            Ears::Fanotify(fanotify) => fanotify.hear(heard),
            Ears::Inotify(inotify) => inotify.hear(heard),
            Ears::None => Ok(false),
        }
    }
}
