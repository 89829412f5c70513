//! The cgroup directories that targets stand in, and those above them: what is written there concerns them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::{limits::Target, model::ContainerKey};

/// Deeper than any real tree.
const MAX_DEPTH: usize = 64;

/// A number that is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PlaceId(pub(super) u64);

/// One directory.
#[derive(Debug)]
pub(super) struct Place {
    /// As in /proc/PID/cgroup.
    pub(super) hierarchy: u32,
    pub(super) path: Arc<str>,
    /// Whose own cgroup it is.
    pub(super) own: Vec<ContainerKey>,
    /// Who is somewhere below.
    pub(super) below: Vec<ContainerKey>,
}

/// All of them. What several targets share is there once.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_path: HashMap<(u32, Arc<str>), PlaceId>,
    places: HashMap<PlaceId, Place>,
    last: u64,
}

impl Places {
    pub(super) fn get(&self, id: PlaceId) -> Option<&Place> {
        self.places.get(&id)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Enters a target, in those hierarchies of which `wanted` is true. Returns all its places, those that were known
    /// already as well: a directory may have been made anew since.
    pub(super) fn add(&mut self, target: &Target, wanted: impl Fn(u32) -> bool) -> Vec<PlaceId> {
        let mut touched = Vec::new();
        for (hierarchy, path) in target.cgroups.iter().filter(|(hierarchy, _)| wanted(*hierarchy)) {
            for (depth, path) in upwards(path).enumerate() {
                let id = self.place(*hierarchy, path);
                let Some(place) = self.places.get_mut(&id) else { continue };
                let of = if depth == 0 { &mut place.own } else { &mut place.below };
                if !of.contains(&target.container) {
                    of.push(target.container);
                }
                touched.push(id);
            }
        }
        touched
    }

    /// Takes a target out. Returns the places that are nobody's any more.
    pub(super) fn remove(&mut self, target: &Target) -> Vec<PlaceId> {
        let mut gone = Vec::new();
        for (hierarchy, path) in &target.cgroups {
            for path in upwards(path) {
                let Entry::Occupied(known) = self.by_path.entry((*hierarchy, Arc::from(path))) else {
                    continue;
                };
                let id = *known.get();
                let Some(place) = self.places.get_mut(&id) else { continue };
                place.own.retain(|other| *other != target.container);
                place.below.retain(|other| *other != target.container);
                if place.own.is_empty() && place.below.is_empty() {
                    known.remove();
                    self.places.remove(&id);
                    gone.push(id);
                }
            }
        }
        gone
    }

    fn place(&mut self, hierarchy: u32, path: &str) -> PlaceId {
        match self.by_path.entry((hierarchy, Arc::from(path))) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                self.last += 1;
                let id = PlaceId(self.last);
                let path = Arc::clone(&vacant.key().1);
                vacant.insert(id);
                self.places.insert(id, Place { hierarchy, path, own: Vec::new(), below: Vec::new() });
                id
            }
        }
    }
}

/// A cgroup's path and those above it, without the hierarchy's root. Nothing for a path that leads out of it (a cgroup
/// outside of the agent's cgroup namespace) or cannot be a file's.
fn upwards(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    let good = path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..");
    let first = (good && path.len() > 1).then_some(path);
    std::iter::successors(first, |path| match path.rsplit_once('/') {
        Some((above, _)) if !above.is_empty() => Some(above),
        _ => None,
    })
    .take(MAX_DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(container: u64, cgroups: &[(u32, &str)]) -> Target {
        let cgroups = cgroups.iter().map(|(hierarchy, path)| (*hierarchy, (*path).to_owned())).collect();
        Target { container: ContainerKey(container), cgroups }
    }

    #[test]
    fn paths_upwards() {
        for (path, expected) in [
            ("/a/b/c", vec!["/a/b/c", "/a/b", "/a"]),
            ("/a/", vec!["/a"]),
            ("/", vec![]),
            ("", vec![]),
            ("a/b", vec![]),
            ("/../x", vec![]),
            ("/a/../b", vec![]),
            ("/a..b/..c", vec!["/a..b/..c", "/a..b"]),
            ("/a\0b", vec![]),
        ] {
            assert_eq!(upwards(path).collect::<Vec<_>>(), expected, "{path:?}");
        }
        assert_eq!(upwards(&"/d".repeat(1000)).count(), MAX_DEPTH);
    }

    #[test]
    fn what_is_shared_is_there_once_and_as_long_as_somebody_is_below() {
        let mut places = Places::default();
        let (a, b) = (target(1, &[(4, "/pods/a"), (9, "/x")]), target(2, &[(4, "/pods/b"), (0, "/")]));
        let of_a = places.add(&a, |hierarchy| hierarchy != 9);
        assert_eq!((of_a.len(), places.len()), (2, 2), "/x is in a hierarchy that is not wanted");
        let of_b = places.add(&b, |_| true);
        assert_eq!(of_a[1], of_b[1]);
        let shared = places.get(of_a[1]).expect("/pods");
        assert_eq!((&*shared.path, shared.hierarchy), ("/pods", 4));
        assert_eq!((shared.own.len(), shared.below.len()), (0, 2));
        assert_eq!(places.get(of_a[0]).expect("/pods/a").own, [ContainerKey(1)]);

        assert_eq!(places.add(&a, |hierarchy| hierarchy != 9), of_a, "a second time changes nothing");
        assert_eq!(places.get(of_a[1]).expect("/pods").below.len(), 2);

        assert_eq!(places.remove(&a), [of_a[0]]);
        assert_eq!(places.remove(&a), []);
        assert_eq!(places.remove(&b), [of_b[0], of_b[1]]);
        assert_eq!((places.len(), places.by_path.len()), (0, 0));
        assert!(places.add(&a, |_| true)[0] > of_b[1], "numbers are not used again");
    }

    #[test]
    fn a_container_below_another_ones_cgroup() {
        let mut places = Places::default();
        let (outer, inner) = (target(1, &[(0, "/c")]), target(2, &[(0, "/c/in")]));
        let of_outer = places.add(&outer, |_| true);
        places.add(&inner, |_| true);
        let place = places.get(of_outer[0]).expect("/c");
        assert_eq!(
            (place.own.as_slice(), place.below.as_slice()),
            (&[ContainerKey(1)][..], &[ContainerKey(2)][..])
        );
        assert_eq!(places.remove(&outer), []);
        assert_eq!(places.remove(&inner).len(), 2);
    }
}
