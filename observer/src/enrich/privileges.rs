//! Capabilities that a container's process has come to and could not have. Creds are in every event, so no hook is needed; a gain
//! shows at the process's next event, at the latest at its end.

use observer_common::{Kind, flags};

use super::{Enricher, finding::*};
use crate::{
    decode::{Event, Payload},
    host::Host,
    model::{CapSet, NsType, Privileges, ProcessKey, SeenPrivileges},
};

impl Enricher {
    /// Holds what the event's process may do against what it could.
    pub(super) fn privileges(&mut self, event: &Event, host: &mut dyn Host) {
        let header = &event.header;
        let seen = seen(event);
        let container = self.container_or_known(event);
        let key = ProcessKey::new(header.tgid, header.start_ns);
        let begins = event.is(flags::JUDGE);
        let Some(process) = self.world.processes.get_mut(&header.tgid).filter(|it| it.key == key) else {
            return;
        };
        if seen.execs == 0 || Self::is_entering(event) || container.is_none() {
            return;
        }
        let Some(known) = process.privileges.as_mut().filter(|_| !begins) else {
            process.privileges = Some(Privileges::begin(&seen));
            return;
        };
        let Some(gain) = known.see(&seen) else { return };
        let subject = self.subject(event, host);
        self.find(event, Some(subject), container, Fact::CapabilitiesGained(gain));
    }

    /// A child begins as its parent is: what the child has shows what the parent has.
    pub(super) fn privileges_of_child(&mut self, event: &Event) {
        let Payload::Fork(fork) = &event.payload else { return };
        let header = &event.header;
        let seen = seen(event);
        let container = self.container_or_known(event);
        if seen.execs == 0 || Self::is_entering(event) || container.is_none() {
            return;
        }
        let of_parent = SeenPrivileges { is_leader: fork.parent_tid == fork.parent_tgid, ..seen };
        let parent = ProcessKey::new(fork.parent_tgid, fork.parent_start_ns);
        let same_user_ns = fork.parent_inodes[NsType::USER.index()] == seen.user_ns;
        let parent = self.world.processes.get_mut(&fork.parent_tgid).filter(|it| it.key == parent);
        let mut gain = None;
        let mut inherited = None;
        if let Some(known) = parent.and_then(|parent| parent.privileges.as_mut()) {
            if same_user_ns {
                gain = known.see(&of_parent);
            }
            inherited = Some(*known);
        }
        let child = ProcessKey::new(header.tgid, header.start_ns);
        if let Some(child) = self.world.processes.get_mut(&header.tgid).filter(|it| it.key == child)
            && child.privileges.is_none()
        {
            child.privileges =
                Some(inherited.map_or_else(|| Privileges::begin(&seen), |it| it.of_child(&seen)));
        }
        if let Some(gain) = gain {
            let subject = self.world.subject(fork.parent_tgid, fork.parent_tid);
            self.find(event, subject, container, Fact::CapabilitiesGained(gain));
        }
    }
}

fn seen(event: &Event) -> SeenPrivileges {
    let header = &event.header;
    SeenPrivileges {
        time_ns: header.time_ns,
        user_ns: header.inodes[NsType::USER.index()],
        execs: header.execs,
        permitted: CapSet(header.permitted),
        attainable: CapSet(header.attainable),
        is_leader: header.tid == header.tgid,
        is_exec: event.kind == Kind::Exec,
    }
}
