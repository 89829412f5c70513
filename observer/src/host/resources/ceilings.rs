//! The tightest limit from a cgroup up to the root: what a container meets first, whoever set it.

use std::{collections::HashMap, path::Path};

use super::files::{Files, Limit};

/// Deeper than any real tree.
const MAX_DEPTH: usize = 64;

/// Limits of cgroups above containers, each read once in a round: hundreds of containers share them.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    known: HashMap<String, Option<u64>>,
}

impl Ceilings {
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The tightest of `own` and of the limits in `file` of the cgroups above, and where it stands. Of equal ones it is
    /// the nearest. Limits below `at_least` do not bind this cgroup, as the kernel says itself.
    ///
    /// `files` is somewhere else afterwards.
    pub(super) fn tightest(
        &mut self,
        files: &mut Files,
        mount: &Path,
        path: &str,
        file: &str,
        own: Option<u64>,
        at_least: u64,
    ) -> Option<(u64, String)> {
        let mut best = own.map(|limit| (limit, path));
        let mut rest = path.trim_end_matches('/');
        for _ in 0..MAX_DEPTH {
            // The root has no limit: no file on v2, none that can be set on v1.
            rest = match rest.rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => above,
                _ => break,
            };
            let limit = match self.known.get(rest) {
                Some(limit) => *limit,
                None => {
                    let limit =
                        if files.enter(mount, rest) { files.limit(file).and_then(Limit::at) } else { None };
                    self.known.insert(rest.to_owned(), limit);
                    limit
                }
            };
            if let Some(limit) = limit.filter(|limit| *limit >= at_least)
                && best.is_none_or(|(tightest, _)| limit < tightest)
            {
                best = Some((limit, rest));
            }
        }
        best.map(|(limit, path)| (limit, path.to_owned()))
    }
}
