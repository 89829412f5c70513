//! The watcher of containers' resources, as the pipeline uses it: it is told which containers there are, and asked what it read.

use std::os::fd::{AsRawFd, RawFd};

use crate::{
    config,
    enrich::World,
    host::Hierarchy,
    limits::{
        Round, Target, WatchOptions,
        watch::{Counts, WatchError, Watcher},
    },
    model::Container,
};

/// What the watcher says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchStatus {
    pub counts: Counts,
    /// Who writes to limits is known.
    pub sees_writers: bool,
}

#[derive(Debug)]
pub struct Resources {
    watcher: Watcher,
    /// The tables' version when the watcher was last told.
    told: Option<u64>,
}

impl Resources {
    /// `None` where it is switched off.
    pub fn start(limits: &config::Limits, hierarchies: &[Hierarchy]) -> Result<Option<Self>, WatchError> {
        if !limits.enabled {
            return Ok(None);
        }
        let options = WatchOptions {
            poll_seconds: limits.poll_seconds,
            // Of those that are configured for some containers the lowest: more is read than necessary, and nothing missed.
            memory_near_percent: limits.lowest_near_percent(),
        };
        Ok(Some(Resources { watcher: Watcher::start(hierarchies.to_vec(), options)?, told: None }))
    }

    /// Readable when there is something to take.
    pub fn fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }

    /// Tells the watcher which containers there are, if that has changed.
    pub fn update(&mut self, world: &World) {
        if self.told == Some(world.version) {
            return;
        }
        self.told = Some(world.version);
        self.watcher.watch(world.containers.values().filter_map(target).collect());
    }

    pub fn status(&self) -> WatchStatus {
        WatchStatus { counts: self.watcher.counts(), sees_writers: self.watcher.sees_writers() }
    }

    pub fn take(&self) -> Option<Round> {
        self.watcher.take()
    }
}

/// A container in which nothing has been executed yet has nothing to be watched, and limits that its runtime is still writing.
fn target(container: &Container) -> Option<Target> {
    container.baseline?;
    let mut cgroups: Vec<(u32, String)> = Vec::with_capacity(container.cgroups.len());
    // Sorted by hierarchy; of several in one the uppermost is the container's own.
    for cgroup in &container.cgroups {
        match cgroups.last_mut() {
            Some((hierarchy, path)) if *hierarchy == cgroup.hierarchy => {
                if cgroup.path.len() < path.len() {
                    path.clone_from(&cgroup.path);
                }
            }
            _ => cgroups.push((cgroup.hierarchy, cgroup.path.clone())),
        }
    }
    (!cgroups.is_empty()).then_some(Target { container: container.key, cgroups })
}
