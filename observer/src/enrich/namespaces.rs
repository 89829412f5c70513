//! Changes of namespaces and of the root directory.

use observer_common::{Kind, flags};

use super::{Enricher, call_of, finding::*, is_refusal, joins::Join};
use crate::{
    decode::{Event, Payload},
    host::Host,
    model::{ContainerKey, NsType, ProcessKey, Runtime, Tuple},
};

/// CLONE_NEW* bits and the type each makes.
const CLONE_TYPES: [(u64, &str); 8] = [
    (0x0200_0000, "cgroup"),
    (0x0800_0000, "ipc"),
    (0x0002_0000, "mnt"),
    (0x4000_0000, "net"),
    (0x2000_0000, "pid"),
    (0x0000_0080, "time"),
    (0x1000_0000, "user"),
    (0x0400_0000, "uts"),
];

/// The types that a mask of CLONE_NEW* bits names, sorted.
pub fn types_of_mask(mask: u64) -> Vec<NsType> {
    CLONE_TYPES
        .iter()
        .filter(|(bit, _)| mask & bit != 0)
        .filter_map(|(_, name)| NsType::by_name(name))
        .collect()
}

impl Enricher {
    pub(super) fn setns(&mut self, event: &Event, host: &mut dyn Host) {
        let Some(call) = call_of(event) else { return };
        let header = &event.header;
        self.know_process(event);
        if call.ret < 0 {
            self.refused(event, host);
            return;
        }
        let tuple = Tuple(header.inodes);
        let before = self.world.last_tuple(header.tgid, header.tid);
        self.world.set_last_tuple(header.tgid, header.tid, tuple, header.time_ns);
        let Some(container) = self.container(event) else { return };
        if Self::is_entering(event) {
            return;
        }
        // Whoever goes out and comes back within the time of a set was out all the same: tell that first.
        let left = self.joins.of(header.tgid, header.tid).is_some_and(|open| {
            let known = self.world.container(Some(container));
            known.is_some_and(|known| {
                self.world.foreign(known, &open.after).iter().any(|f| tuple.get(f.ns) != f.inode)
            })
        });
        if left {
            self.close_joins(header.tgid, Some(header.tid));
        }
        let subject = self.subject(event, host);
        let join = Join {
            pid: header.tgid,
            tid: header.tid,
            first_ns: header.time_ns,
            before,
            after: tuple,
            subject,
            container,
        };
        if let Some(displaced) = self.joins.add(join) {
            self.close_join(displaced);
        }
    }

    /// A process goes on: its sets of joins are complete.
    pub(super) fn close_joins(&mut self, pid: u32, tid: Option<u32>) {
        for join in self.joins.take(pid, tid) {
            self.close_join(join);
        }
    }

    pub(super) fn close_join(&mut self, join: Join) {
        let door = Door::Call(Kind::Setns);
        self.judge(join.first_ns, join.subject, join.container, join.before, join.after, Vec::new(), door);
    }

    pub(super) fn unshare(&mut self, event: &Event, host: &mut dyn Host) {
        let Some(call) = call_of(event) else { return };
        let header = &event.header;
        self.know_process(event);
        if call.ret < 0 {
            self.refused(event, host);
            return;
        }
        let tuple = Tuple(header.inodes);
        let container = self.container(event);
        let before = self.world.last_tuple(header.tgid, header.tid);
        self.world.set_last_tuple(header.tgid, header.tid, tuple, header.time_ns);
        // What the flags asked for and the call granted is new; pid and time are the children's.
        let made: Vec<NsType> = types_of_mask(call.args[0]);
        let by = container.filter(|_| !Self::is_entering(event));
        for ns in &made {
            let seen = match ns.name() {
                "pid" => NsType::by_name("pid_for_children"),
                "time" => NsType::by_name("time_for_children"),
                _ => Some(*ns),
            };
            if let Some(seen) = seen {
                self.world.namespace_made(tuple.get(seen), by, header.time_ns);
            }
        }
        // A copy of the host's mounts is new, and still shows the host's root.
        self.watch_root(event, host);
        if let Some(container) = by
            && !made.is_empty()
        {
            let subject = self.subject(event, host);
            self.judge(header.time_ns, subject, container, before, tuple, made, Door::Call(Kind::Unshare));
        }
    }

    /// A refused attempt of a container's task.
    pub(super) fn refused(&mut self, event: &Event, host: &mut dyn Host) {
        let Some(call) = call_of(event) else { return };
        if !is_refusal(call.ret) || Self::is_entering(event) {
            return;
        }
        self.know_process(event);
        let Some(container) = self.container(event) else { return };
        let types = match event.kind {
            Kind::Setns => types_of_mask(call.args[1]),
            _ => types_of_mask(call.args[0]),
        };
        let path = match &event.payload {
            Payload::RootChange { path, .. } => path.clone(),
            _ => None,
        };
        let subject = self.subject(event, host);
        let fact = Fact::Refused { call: event.kind, errno: -call.ret as i32, types, path };
        self.find(event, Some(subject), Some(container), fact);
    }

    /// A thread's tuple changed, and nothing that we watch did it.
    pub(super) fn drift(&mut self, event: &Event, host: &mut dyn Host) {
        let header = &event.header;
        self.know_process(event);
        let tuple = Tuple(header.inodes);
        let before = self.world.last_tuple(header.tgid, header.tid);
        self.world.set_last_tuple(header.tgid, header.tid, tuple, header.time_ns);
        if Self::is_entering(event) {
            return;
        }
        self.watch_root(event, host);
        // The start-up scan has judged what the first look sees.
        if let Some(container) = self.container(event).filter(|_| !event.is(flags::FIRST_SIGHT)) {
            let subject = self.subject(event, host);
            self.judge(header.time_ns, subject, container, before, tuple, Vec::new(), Door::Unseen);
        }
    }

    /// Holds a container task's namespaces against its container, and reports what is new in them.
    #[expect(clippy::too_many_arguments, reason = "the one place where all of a change comes together")]
    pub(super) fn judge(
        &mut self,
        time_ns: u64,
        subject: Subject,
        container: ContainerKey,
        before: Option<Tuple>,
        actual: Tuple,
        made: Vec<NsType>,
        door: Door,
    ) {
        let Some(known) = self.world.containers.get(&container) else { return };
        let Some(expected) = known.baseline else { return };
        let mut foreign = self.world.foreign(known, &actual);
        foreign.retain(|f| !made.contains(&f.ns.kind()));
        // A tuple that was never seen before is held against the baseline.
        let before = before.filter(Tuple::is_known).unwrap_or(expected);
        let is_new = foreign.iter().any(|f| before.get(f.ns) != f.inode);
        if !is_new && made.is_empty() {
            return;
        }
        let foreign = if is_new { foreign } else { Vec::new() };
        let change = NamespaceChange { expected, actual, foreign, made, door };
        self.findings.push(Finding {
            time_ns,
            subject: Some(subject),
            container: Some(container),
            fact: Fact::Namespaces(change),
            late: false,
        });
    }

    /// Remembers what kind of root the event's process has.
    pub(super) fn note_root(&mut self, event: &Event) {
        let key = ProcessKey::new(event.header.tgid, event.header.start_ns);
        if let Some(process) = self.world.processes.get_mut(&event.header.tgid).filter(|p| p.key == key) {
            process.host_root = event.is(flags::HOST_ROOT);
        }
    }

    /// A container's task has got the host's root, and no chroot or pivot_root was seen: a 32-bit call, or one before
    /// the agent started.
    pub(super) fn watch_root(&mut self, event: &Event, host: &mut dyn Host) {
        let header = &event.header;
        let key = ProcessKey::new(header.tgid, header.start_ns);
        let knew = self.world.processes.get(&header.tgid).is_some_and(|p| p.key == key && p.host_root);
        self.note_root(event);
        if knew || !event.is(flags::HOST_ROOT) || Self::is_entering(event) {
            return;
        }
        let Some(container) = self.container_or_known(event) else { return };
        let Some(known) = self.world.container(Some(container)) else { return };
        let Some(baseline) = known.baseline else { return };
        let mnt = header.inodes[NsType::MNT.index()];
        // Who is out by its mount namespace has the host's root with it, and that was told.
        let inside = mnt == baseline.get(NsType::MNT) || known.made.contains(&mnt);
        if known.host_root || !inside || baseline.get(NsType::MNT) == self.world.host_tuple.get(NsType::MNT) {
            return;
        }
        // What was there before the agent is learnt where it is the container's own way (bubblewrap, unshare).
        if event.is(flags::FIRST_SIGHT) && (known.runtime == Runtime::Namespaces || header.ns_pid == 1) {
            if let Some(known) = self.world.containers.get_mut(&container) {
                known.host_root = true;
            }
            return;
        }
        let subject = self.subject(event, host);
        let fact = Fact::Root { door: Door::Unseen, verdict: RootVerdict::HostRoot, path: None };
        self.find(event, Some(subject), Some(container), fact);
        if event.is(flags::FIRST_SIGHT)
            && let Some(finding) = self.findings.last_mut()
        {
            finding.late = true;
        }
    }

    /// By device and inode number, where the kernel side does not know the host's root itself (`host_namespaces: own`).
    fn looks_like_host_root(&self, root: &observer_common::Root) -> bool {
        let host = &self.world.host;
        host.told != 0 && root.dev == host.root.dev && root.mount_root_ino == host.root.mount_root_ino
    }

    pub(super) fn root(&mut self, event: &Event, host: &mut dyn Host) {
        let Payload::RootChange { change, path } = &event.payload else { return };
        self.know_process(event);
        if change.call.ret < 0 {
            self.refused(event, host);
            return;
        }
        if Self::is_entering(event) || event.is(flags::JUDGE) {
            return;
        }
        let Some(key) = self.container(event) else { return };
        let Some(baseline) = self.world.container(Some(key)).and_then(|c| c.baseline) else { return };
        let host_root_from_start = self.world.container(Some(key)).is_some_and(|c| c.host_root);
        self.note_root(event);
        let tuple = Tuple(event.header.inodes);
        let mnt = tuple.get(NsType::MNT);
        let made_inside = self.world.container(Some(key)).is_some_and(|c| c.made.contains(&mnt));
        if mnt != baseline.get(NsType::MNT) && !made_inside {
            // Already out by its mount namespace, and that was told.
            return;
        }
        let root = &change.root;
        let verdict = if root.mnt_ns != 0 && root.mnt_ns != mnt {
            RootVerdict::ForeignMountNamespace
        } else if (event.is(flags::HOST_ROOT) || self.looks_like_host_root(root))
            && !host_root_from_start
            && baseline.get(NsType::MNT) != self.world.host_tuple.get(NsType::MNT)
        {
            RootVerdict::HostRoot
        } else {
            return;
        };
        let subject = self.subject(event, host);
        let fact = Fact::Root { door: Door::Call(event.kind), verdict, path: path.clone() };
        self.find(event, Some(subject), Some(key), fact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_name_their_types_sorted() {
        let names = |mask| types_of_mask(mask).iter().map(|ns| ns.name()).collect::<Vec<_>>();
        assert_eq!(names(0x7e02_0080), ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]);
        assert_eq!(names(0x1000_0000), ["user"]);
        assert!(names(0).is_empty());
    }
}
