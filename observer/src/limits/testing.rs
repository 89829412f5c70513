//! A container and a process for tests.

use crate::model::{Container, ContainerKey, Metadata, Process, ProcessKey, Runtime, Tuple};

pub fn container() -> Container {
    Container {
        key: ContainerKey(1),
        id: "ab".into(),
        name: Some("web".into()),
        image: None,
        image_digest: None,
        runtime: Runtime::Docker,
        pod: None,
        metadata: Metadata::Known,
        cgroups: Vec::new(),
        slots: Vec::new(),
        baseline: None,
        baseline_ns: 0,
        baseline_of_init: false,
        baseline_of: None,
        label: None,
        host_root: false,
        made: Default::default(),
        processes: 1,
        created_ns: 0,
        late: false,
    }
}

pub fn process(key: ProcessKey, container: Option<ContainerKey>) -> Process {
    Process {
        key,
        start_ns: 1,
        parent: None,
        comm: "sh".into(),
        exe: None,
        exe_asked: false,
        args: [].into(),
        uid: 0,
        gid: 0,
        ns_pid: 1,
        tuple: Tuple::default(),
        container,
        host_root: false,
        privileges: None,
        label: None,
        label_told: false,
        brought_in: false,
        entering: false,
        updated_ns: 0,
    }
}
