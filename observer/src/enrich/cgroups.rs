//! Cgroups made, removed, and tasks that move between them.

use observer_common::{Kind, flags};

use super::{
    Enricher,
    finding::*,
    identity::{Identity, identify},
    world::{CgroupEntry, Slot},
};
use crate::{
    decode::{Event, Payload, text},
    host::Host,
    model::{Ancestor, ContainerKey},
};

impl Enricher {
    pub(super) fn cgroup_made(&mut self, event: &Event, host: &mut dyn Host) {
        let Payload::Cgroup { cgroup, path } = &event.payload else { return };
        let path = match path.as_slice() {
            // No cgroup has an empty path: the kernel side was not allowed to read it. Gone again already, it stays unknown.
            [] => host.cgroup_path(cgroup.hierarchy, cgroup.id).unwrap_or_default().into(),
            path => String::from_utf8_lossy(path),
        };
        let above = self.world.cgroups.get(&(cgroup.hierarchy, cgroup.parent_id)).map(|parent| parent.slot);
        let inherited = above == Some(cgroup.slot);
        if let Some(key) = above.filter(|_| !inherited).and_then(|slot| self.world.container_of_slot(slot)) {
            // Made below a container's cgroup by somebody else, before the kernel side was told whose that is.
            let entry = CgroupEntry { path: path.as_ref().into(), slot: cgroup.slot };
            self.world.cgroups.insert((cgroup.hierarchy, cgroup.id), entry);
            self.world.assign_slot(cgroup.slot, key);
            return;
        }
        if !inherited && self.container(event).is_some() && !Self::is_entering(event) {
            // A container made it outside itself: whatever it calls it, it is no container's.
            let entry = CgroupEntry { path: path.as_ref().into(), slot: cgroup.slot };
            self.world.cgroups.insert((cgroup.hierarchy, cgroup.id), entry);
            if self.world.slots.get(&cgroup.slot).is_none_or(|slot| slot.container.is_none()) {
                self.world.assign_host(cgroup.slot);
            }
            return;
        }
        self.know_cgroup(
            cgroup.hierarchy,
            cgroup.id,
            &path,
            cgroup.slot,
            inherited,
            event.header.time_ns,
            false,
        );
    }

    /// Enters a cgroup into the tables, and its slot, unless that was inherited from the cgroup above.
    #[expect(clippy::too_many_arguments, reason = "plain facts of one cgroup")]
    pub(super) fn know_cgroup(
        &mut self,
        hierarchy: u32,
        id: u64,
        path: &str,
        slot: u64,
        inherited: bool,
        now: u64,
        late: bool,
    ) {
        let known = self.world.cgroups.insert((hierarchy, id), CgroupEntry { path: path.into(), slot });
        if known.is_some_and(|known| known.slot == slot) {
            return;
        }
        self.world.slots.entry(slot).or_insert_with(|| Slot { seen_ns: now, ..Slot::default() }).cgroups += 1;
        // A slot that has another cgroup or a container already was inherited, though the news of it are missing.
        let taken =
            self.world.slots.get(&slot).is_some_and(|slot| slot.container.is_some() || slot.cgroups > 1);
        if inherited || taken {
            return;
        }
        match identify(path) {
            Identity::Container { id: name, runtime } => {
                // Two of the same id in one hierarchy, neither in the other, are two: a user may call a cgroup as a container of
                // the system's is called. The second goes by its path, and no runtime's state is taken for its.
                let taken = self.world.container_by_id(&name).and_then(|key| self.world.container(Some(key)));
                let another = taken.is_some_and(|taken| {
                    let mut here = taken.cgroups.iter().filter(|cgroup| cgroup.hierarchy == hierarchy);
                    here.any(|cgroup| !is_within(path, &cgroup.path) && !is_within(&cgroup.path, path))
                });
                let called = if another { path.trim_start_matches('/') } else { name.as_str() };
                let key = self.world.make_container(called, runtime, now, late);
                self.world.begin_again(key);
                self.world.assign_slot(slot, key);
                self.world.add_cgroup(key, hierarchy, id, path);
            }
            Identity::Host => self.world.assign_host(slot),
            Identity::Unknown { leaf } => {
                if let Some(slot) = self.world.slots.get_mut(&slot) {
                    slot.leaf = Some(leaf);
                    slot.path = Some(path.into());
                }
            }
        }
    }

    pub(super) fn cgroup_removed(&mut self, event: &Event) {
        let Payload::Cgroup { cgroup, .. } = &event.payload else { return };
        let place = (cgroup.hierarchy, cgroup.id);
        let Some(entry) = self.world.cgroups.remove(&place) else { return };
        if let Some(slot) = self.world.slots.get_mut(&entry.slot) {
            slot.cgroups = slot.cgroups.saturating_sub(1);
            // A slot that never became a container's goes with its last cgroup.
            if slot.cgroups == 0 && slot.container.is_none() {
                self.world.slots.remove(&entry.slot);
                self.world.effects.push(Effect::Forget { slot: entry.slot });
            }
        }
        if let Some(key) = self.world.container_of_slot(entry.slot) {
            if let Some(container) = self.world.containers.get_mut(&key) {
                container.cgroups.retain(|c| (c.hierarchy, c.id) != place);
                self.world.version += 1;
            }
            self.world.drop_if_gone(key);
        }
    }

    pub(super) fn cgroup_move(&mut self, event: &Event, host: &mut dyn Host) {
        let Payload::CgroupMove { change, path } = &event.payload else { return };
        self.know_process(event);
        if Self::is_entering(event) || !event.is(flags::PRIORITY | flags::DEMOTED) {
            return;
        }
        let Some(key) = self.container(event) else { return };
        let to = &change.to;
        let target = self
            .world
            .cgroups
            .get(&(to.hierarchy, to.id))
            .map(|cgroup| cgroup.slot)
            .or((to.slot != 0).then_some(to.slot))
            .and_then(|slot| self.world.container_of_slot(slot));
        let Some(from) = self.left(key, to.hierarchy, target) else { return };
        let to_path = if !path.is_empty() {
            String::from_utf8_lossy(path).into_owned()
        } else if let Some(cgroup) = self.world.cgroups.get(&(to.hierarchy, to.id)) {
            cgroup.path.to_string()
        } else {
            // A hierarchy's root is in no table.
            host.cgroup_path(to.hierarchy, to.id).unwrap_or_else(|| "/".to_owned())
        };
        let subject = self.subject(event, host);
        let mover = Ancestor { pid: change.mover_tgid, comm: text(&change.mover_comm) };
        let mover_in_container = self.world.container_of_slot(change.mover_slot).is_some();
        let change = CgroupChange {
            hierarchy: to.hierarchy,
            from: Some(from),
            to: Some(to_path),
            to_id: to.id,
            target,
            mover,
            mover_in_container,
            door: change.door,
        };
        debug_assert_eq!(event.kind, Kind::CgroupMove);
        self.find(event, Some(subject), Some(key), Fact::Cgroup(change));
    }

    /// The path that a task of the container has left, if being in `target` now is outside: only hierarchies in
    /// which the container has a cgroup count.
    pub(super) fn left(
        &self,
        key: ContainerKey,
        hierarchy: u32,
        target: Option<ContainerKey>,
    ) -> Option<String> {
        if target == Some(key) {
            return None;
        }
        let container = self.world.containers.get(&key)?;
        container.cgroups.iter().find(|c| c.hierarchy == hierarchy).map(|c| c.path.clone())
    }
}

/// True for the same path, and for one below it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
