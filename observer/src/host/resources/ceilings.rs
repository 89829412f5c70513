//! Limits of the cgroups above a container: the tightest one is what it meets first, whoever set it, and the one with
//! the least room left is what it may meet although it is not the tightest, because others use it as well.

use std::{collections::HashMap, path::Path};

use super::files::{Files, Limit};

/// Deeper than any real tree.
const MAX_DEPTH: usize = 64;

/// Where a controller's hierarchy keeps a limit, what is used of it, and how often it was met.
#[derive(Clone, Copy, Debug)]
pub(super) struct LimitFiles {
    pub(super) limit: &'static str,
    pub(super) usage: &'static str,
    /// Of this cgroup alone: what is below it counts for itself.
    pub(super) hits: Hits,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Hits {
    /// A file that is that number.
    Number(&'static str),
    /// The line `max` of a file.
    Max(&'static str),
    Unknown,
}

pub(super) const MEMORY_V1: LimitFiles = LimitFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    hits: Hits::Number("memory.failcnt"),
};
/// Since Linux 5.2; memory.events counts what descendants meet, too.
pub(super) const MEMORY_V2: LimitFiles =
    LimitFiles { limit: "memory.max", usage: "memory.current", hits: Hits::Max("memory.events.local") };
/// Which cgroup counts a refused fork has changed over the years: see [`crate::model::resources::Pids::events_max`].
pub(super) const PIDS: LimitFiles =
    LimitFiles { limit: "pids.max", usage: "pids.current", hits: Hits::Unknown };

/// A cgroup above a container that has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Above {
    pub(super) limit: u64,
    pub(super) usage: Option<u64>,
    pub(super) hits: Option<u64>,
}

/// What was found on the way up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The tightest limit, own or above, and the path of the cgroup that it stands at.
    pub(super) tightest: Option<(u64, String)>,
    /// The cgroup above with the least room, if any above has a limit.
    pub(super) fullest: Option<(Above, String)>,
}

/// Limits of cgroups above containers, each read once in a round: hundreds of containers share them.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    known: HashMap<String, Option<Above>>,
}

impl Ceilings {
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Looks at a container's own limit and at those of the cgroups above it. Of equal ones it is the nearest.
    /// Limits below `at_least` do not bind this cgroup, as the kernel says itself.
    ///
    /// `files` is somewhere else afterwards.
    pub(super) fn look(
        &mut self,
        files: &mut Files,
        mount: &Path,
        path: &str,
        of: LimitFiles,
        own: Option<u64>,
        at_least: u64,
    ) -> Found {
        let mut tightest = own.map(|limit| (limit, path));
        let mut fullest: Option<(Above, &str)> = None;
        let mut rest = path.trim_end_matches('/');
        for _ in 0..MAX_DEPTH {
            // The root has no limit: no file on v2, none that can be set on v1.
            rest = match rest.rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => above,
                _ => break,
            };
            let above = match self.known.get(rest) {
                Some(above) => *above,
                None => {
                    let above = if files.enter(mount, rest) { read(files, of) } else { None };
                    self.known.insert(rest.to_owned(), above);
                    above
                }
            };
            let Some(above) = above.filter(|above| above.limit >= at_least) else { continue };
            if tightest.is_none_or(|(limit, _)| above.limit < limit) {
                tightest = Some((above.limit, rest));
            }
            if fullest.is_none_or(|(other, _)| room(above) < room(other)) {
                fullest = Some((above, rest));
            }
        }
        Found {
            tightest: tightest.map(|(limit, path)| (limit, path.to_owned())),
            fullest: fullest.map(|(above, path)| (above, path.to_owned())),
        }
    }
}

fn read(files: &mut Files, of: LimitFiles) -> Option<Above> {
    let limit = files.limit(of.limit).and_then(Limit::at)?;
    let usage = files.number(of.usage);
    let hits = match of.hits {
        Hits::Number(file) => files.number(file),
        Hits::Max(file) => {
            let mut hits = None;
            files.keyed(file, |key, value| {
                if key == "max" {
                    hits = Some(value);
                }
            });
            hits
        }
        Hits::Unknown => None,
    };
    Some(Above { limit, usage, hits })
}

/// One whose usage is not known counts as empty.
fn room(above: Above) -> u64 {
    above.limit.saturating_sub(above.usage.unwrap_or_default())
}
