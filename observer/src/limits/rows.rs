//! Samples as metrics want them.

use super::{ContainerResources, Sample};
use crate::{enrich::World, model::SeriesLabels};

/// Those of containers that are still known.
pub fn rows<'a>(samples: impl Iterator<Item = &'a Sample>, world: &World) -> Vec<ContainerResources> {
    let mut rows = Vec::new();
    for sample in samples {
        let Some(container) = world.container(Some(sample.container)) else { continue };
        let SeriesLabels { name, pod, namespace } = container.series_labels();
        let (id, resources) = (container.id.clone(), sample.resources.clone());
        rows.push(ContainerResources { id, name, pod, namespace, resources });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::testing,
        model::{Container, Pod},
    };

    /// What the labels of a container's series are, by its id, its runtime's name for it, and its pod.
    fn labels(id: &str, name: Option<&str>, pod: Option<Pod>) -> [String; 3] {
        let name = name.map(str::to_owned);
        let container = Container { id: id.to_owned(), name, pod, ..testing::container() };
        let SeriesLabels { name, pod, namespace } = container.series_labels();
        [name, pod, namespace]
    }

    #[test]
    fn a_container_is_called_what_a_person_would_call_it() {
        let pod = |container: &str| {
            let [namespace, name, container] = ["shop", "web-0", container].map(str::to_owned);
            Some(Pod { namespace, name, container, uid: "u".into() })
        };
        let long = "0123456789abcdef".repeat(4);
        assert_eq!(labels("c", Some("web"), None), ["web", "", ""]);
        assert_eq!(labels(&long, None, None), ["0123456789ab", "", ""]);
        assert_eq!(labels("web-doc", Some(""), None), ["web-doc", "", ""]);
        assert_eq!(labels("c", Some("k8s_app_web-0_shop_u_0"), pod("app")), ["app", "web-0", "shop"]);
        // A sandbox is no container of the pod's specification.
        assert_eq!(labels("c", Some("POD"), pod("")), ["POD", "web-0", "shop"]);
    }
}
