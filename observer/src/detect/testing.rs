//! A small world for the detectors' tests: host, container `web`, container `db`.

use observer_common::{Host, Kind, NAMESPACES, Root};

use super::Draft;
use crate::{
    enrich::{Door, Fact, Finding, Foreign, NamespaceChange, Owner, Subject, World},
    model::{ContainerKey, NsType, Runtime, Tuple},
};

pub fn world() -> World {
    let host = Host {
        inodes: [10; NAMESPACES],
        found: 1,
        told: 0,
        root: Root { mnt_ns: 10, dev: 1, mount_root_ino: 2, ino: 2 },
    };
    let mut world = World::new(host);
    for (id, name, inode) in [("web-id", "web", 20), ("db-id", "db", 30)] {
        let key = world.make_container(id, Runtime::Docker, 1, false);
        world.containers.get_mut(&key).unwrap().name = Some(name.into());
        world.set_baseline(key, Tuple([inode; NAMESPACES]), 0);
    }
    world
}

/// Its evidence is what the rule's reference says that it may be.
pub fn assert_documented(draft: &Draft) {
    let evidence = serde_json::to_value(&draft.evidence).expect("JSON");
    for key in evidence.as_object().into_iter().flat_map(|it| it.keys()) {
        let known = draft.definition.evidence.contains(&key.as_str());
        assert!(known, "the reference of {} lacks evidence.{key}", draft.definition.id);
    }
}

pub fn web() -> ContainerKey {
    ContainerKey(1)
}

pub fn other() -> ContainerKey {
    ContainerKey(2)
}

fn finding(fact: Fact) -> Finding {
    let subject = Subject {
        pid: 100,
        tid: 100,
        start_ns: 5,
        comm: "sh".into(),
        exe: Some("/bin/sh".into()),
        exe_asked: false,
        args: vec!["sh".into()],
        uid: 0,
        gid: 0,
        ancestors: vec![],
    };
    Finding { time_ns: 1_000, subject: Some(subject), container: Some(web()), fact, late: false }
}

/// `web`'s process is in these foreign namespaces, and has made those.
pub fn changed(world: &World, foreign: &[(String, Owner)], made: &[&str], door: Door) -> Finding {
    let expected = world.container(Some(web())).unwrap().baseline.unwrap();
    let mut actual = expected;
    let foreign: Vec<Foreign> = foreign
        .iter()
        .map(|(name, owner)| {
            let ns = NsType::by_name(name).unwrap();
            let inode = match owner {
                Owner::Host => world.host_tuple.get(ns),
                Owner::Container(key) => world.container(Some(*key)).unwrap().baseline.unwrap().get(ns),
                Owner::Unknown => 99,
            };
            actual.0[ns.index()] = inode;
            Foreign { ns, inode, owner: *owner }
        })
        .collect();
    let made = made.iter().map(|name| NsType::by_name(name).unwrap()).collect();
    finding(Fact::Namespaces(NamespaceChange { expected, actual, foreign, made, door }))
}

pub fn refused(call: Kind) -> Finding {
    finding(Fact::Refused { call, errno: libc::EPERM, types: vec![NsType::USER], path: None })
}
