//! What a runtime's state says of a container: into the table, and into an alert that has waited for it.

use super::Enricher;
use crate::{
    host::{Host, RuntimeFacts},
    model::{ContainerKey, ContainerRef, Metadata, Pod, PodRef, Runtime},
};

impl Enricher {
    /// Fills in what a runtime's state says, until all of it is known.
    pub(super) fn name_container(&mut self, key: ContainerKey, host: &mut dyn Host) {
        let Some(container) = self.world.containers.get(&key) else { return };
        if container.metadata == Metadata::Known || container.runtime == Runtime::Namespaces {
            return;
        }
        let id = container.id.clone();
        if let Some(facts) = host.runtime(&id) {
            self.apply_runtime(key, &facts);
        }
    }

    /// Asks once more for a container that an alert is about. The answer also for one that is gone meanwhile.
    pub fn ask_again(&mut self, id: &str, host: &mut dyn Host) -> Option<RuntimeFacts> {
        let facts = host.runtime(id)?;
        if let Some(key) = self.world.container_by_id(id) {
            self.apply_runtime(key, &facts);
        }
        Some(facts)
    }

    pub(super) fn apply_runtime(&mut self, key: ContainerKey, facts: &RuntimeFacts) {
        let Some(container) = self.world.containers.get_mut(&key) else { return };
        container.name = facts.name.clone().or(container.name.take());
        container.image = facts.image.clone().or(container.image.take());
        container.image_digest = facts.image_hash().or(container.image_digest.take());
        container.runtime = better(container.runtime, facts);
        container.pod = pod(facts).or(container.pod.take());
        let metadata = found(container.runtime, facts, container.metadata);
        if metadata != container.metadata {
            container.metadata = metadata;
            self.named += 1;
        }
    }
}

/// How much these facts are. All have a name, except of runtimes without names. Docker, containerd, podman and CRI-O write
/// what they call a container before they have it created by runc or crun: once that has a process, there is no more
/// to come.
fn found(runtime: Runtime, facts: &RuntimeFacts, before: Metadata) -> Metadata {
    if before == Metadata::Known || facts.name.is_some() || matches!(runtime, Runtime::Runc | Runtime::Crun) {
        Metadata::Known
    } else if before == Metadata::Awaited && facts.init_pid.is_some() {
        Metadata::Partial
    } else {
        before
    }
}

/// The runtime, when its state is known. A path of the cgroupfs driver only says that Kubernetes made it, and what is
/// behind that, the state knows.
fn better(runtime: Runtime, facts: &RuntimeFacts) -> Runtime {
    let Some(said) = facts.runtime.as_deref().and_then(Runtime::by_name) else { return runtime };
    match runtime {
        Runtime::Unknown => said,
        Runtime::Containerd if !matches!(said, Runtime::Runc | Runtime::Crun) => said,
        _ => runtime,
    }
}

fn pod(facts: &RuntimeFacts) -> Option<Pod> {
    Some(Pod {
        name: facts.pod_name.clone()?,
        namespace: facts.pod_namespace.clone().unwrap_or_default(),
        uid: facts.pod_uid.clone().unwrap_or_default(),
        container: facts.pod_container.clone().unwrap_or_default(),
    })
}

/// Fills what an alert says of its container; gives how much that is.
pub fn complete(container: &mut ContainerRef, facts: &RuntimeFacts) -> Metadata {
    let runtime = better(Runtime::by_name(&container.runtime).unwrap_or(Runtime::Unknown), facts);
    container.runtime = runtime.name().to_owned();
    container.name = facts.name.clone().or(container.name.take());
    container.image = facts.image.clone().or(container.image.take());
    container.image_digest = facts.image_hash().or(container.image_digest.take());
    container.pod = pod(facts).map(PodRef::from).or(container.pod.take());
    let metadata = found(runtime, facts, Metadata::Awaited);
    if metadata == Metadata::Known {
        container.metadata = None;
    }
    metadata
}
