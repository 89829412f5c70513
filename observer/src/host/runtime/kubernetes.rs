//! What a pod's container is called: annotations and labels of the CRI runtimes, in one form.

use std::collections::BTreeMap;

use crate::host::RuntimeFacts;

/// How Kubernetes's own runtimes call a pod's sandbox, the container that holds its namespaces (dockershim's and
/// CRI-O's name for it; containerd has none).
pub const SANDBOX_NAME: &str = "POD";

/// Names of annotations of one CRI runtime.
struct Names {
    kind: &'static str,
    sandbox_id: &'static str,
    container: &'static str,
    image: &'static str,
    pod: &'static str,
    namespace: &'static str,
    uid: &'static str,
}

/// containerd: pkg/cri/annotations/annotations.go (internal/cri/annotations since 2.0).
const CONTAINERD: Names = Names {
    kind: "io.kubernetes.cri.container-type",
    sandbox_id: "io.kubernetes.cri.sandbox-id",
    container: "io.kubernetes.cri.container-name",
    image: "io.kubernetes.cri.image-name",
    pod: "io.kubernetes.cri.sandbox-name",
    namespace: "io.kubernetes.cri.sandbox-namespace",
    uid: "io.kubernetes.cri.sandbox-uid",
};

/// CRI-O: pkg/annotations/annotations.go for its own; the kubelet's labels, which it copies, for the pod
/// (kubernetes: staging/src/k8s.io/kubelet/pkg/types/labels.go).
const CRIO: Names = Names {
    kind: "io.kubernetes.cri-o.ContainerType",
    sandbox_id: "io.kubernetes.cri-o.SandboxID",
    container: "io.kubernetes.container.name",
    image: "io.kubernetes.cri-o.ImageName",
    pod: "io.kubernetes.pod.name",
    namespace: "io.kubernetes.pod.namespace",
    uid: "io.kubernetes.pod.uid",
};

fn take(notes: &BTreeMap<String, String>, names: &Names) -> RuntimeFacts {
    let note = |name: &str| notes.get(name).cloned();
    let pod_sandbox = note(names.kind).as_deref() == Some("sandbox");
    let container = note(names.container);
    RuntimeFacts {
        name: container.clone().or_else(|| pod_sandbox.then(|| SANDBOX_NAME.to_owned())),
        image: note(names.image),
        pod_namespace: note(names.namespace),
        pod_name: note(names.pod),
        pod_uid: note(names.uid),
        // A sandbox is no container of the pod's specification.
        pod_container: container.filter(|_| !pod_sandbox),
        pod_sandbox,
        pod_sandbox_id: note(names.sandbox_id),
        ..RuntimeFacts::default()
    }
}

/// Of containerd's CRI plugin.
pub fn of_containerd(notes: &BTreeMap<String, String>) -> RuntimeFacts {
    take(notes, &CONTAINERD)
}

/// Of CRI-O.
pub fn of_crio(notes: &BTreeMap<String, String>) -> RuntimeFacts {
    let mut facts = take(notes, &CRIO);
    let note = |name: &str| notes.get(name).cloned();
    // What `Image` and `ImageRef` hold has changed over time: a name, an id, a reference with a digest. Their form tells.
    facts.image =
        facts.image.or_else(|| note("io.kubernetes.cri-o.Image").filter(|text| image_id(text).is_none()));
    let reference = note("io.kubernetes.cri-o.ImageRef");
    facts.image_id = reference.as_deref().and_then(image_id);
    facts.image_digest = reference.as_deref().and_then(pulled_digest);
    facts.pod_namespace = facts.pod_namespace.or_else(|| note("io.kubernetes.cri-o.Namespace"));
    facts.pod_name = facts.pod_name.or_else(|| note("io.kubernetes.cri-o.KubeName"));
    facts.created_unix_ns = note("io.kubernetes.cri-o.Created").as_deref().and_then(super::files::unix_ns);
    facts
}

/// Of docker behind cri-dockerd, by the container's labels. An image brings labels of its own, so they count only where
/// the container's name, which an image cannot set, says the same: `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`
/// (cri-dockerd: core/naming.go).
pub fn of_docker(name: &str, label: impl Fn(&str) -> Option<String>) -> RuntimeFacts {
    let parts: Vec<&str> = name.split('_').collect();
    let ["k8s", container, pod, namespace, uid, ..] = parts.as_slice() else {
        return RuntimeFacts::default();
    };
    let says = |key: &str, value: &str| label(key).as_deref() == Some(value);
    if !says("io.kubernetes.pod.name", pod)
        || !says("io.kubernetes.pod.namespace", namespace)
        || !says("io.kubernetes.pod.uid", uid)
    {
        return RuntimeFacts::default();
    }
    let pod_sandbox = *container == SANDBOX_NAME;
    RuntimeFacts {
        pod_namespace: Some((*namespace).to_owned()),
        pod_name: Some((*pod).to_owned()),
        pod_uid: Some((*uid).to_owned()),
        pod_container: (!pod_sandbox).then(|| (*container).to_owned()),
        pod_sandbox,
        pod_sandbox_id: label("io.kubernetes.sandbox.id"),
        ..RuntimeFacts::default()
    }
}

/// A `sha256:` digest, bare or at the end of a reference.
pub fn digest(reference: &str) -> Option<String> {
    let digest = reference.rsplit_once('@').map_or(reference, |(_, digest)| digest);
    let hex = digest.strip_prefix("sha256:")?;
    is_hash(hex).then(|| digest.to_owned())
}

/// The digest of a reference that has one.
pub fn pulled_digest(reference: &str) -> Option<String> {
    reference.contains('@').then(|| digest(reference)).flatten()
}

/// An image's id in the form `sha256:HASH`, with or without that prefix in the text.
pub fn image_id(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    is_hash(hex).then(|| format!("sha256:{hex}"))
}

fn is_hash(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
