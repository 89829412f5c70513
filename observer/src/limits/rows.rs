//! Samples as metrics want them.

use super::{ContainerResources, Sample};
use crate::enrich::World;

/// Those of containers that are still known.
pub fn rows(samples: &[Sample], world: &World) -> Vec<ContainerResources> {
    let mut rows = Vec::with_capacity(samples.len());
    for sample in samples {
        let Some(container) = world.container(Some(sample.container)) else { continue };
        let (pod, namespace) = match &container.pod {
            Some(pod) => (pod.name.clone(), pod.namespace.clone()),
            None => Default::default(),
        };
        rows.push(ContainerResources {
            id: container.id.clone(),
            name: container.name.clone().unwrap_or_default(),
            pod,
            namespace,
            resources: sample.resources.clone(),
        });
    }
    rows
}
