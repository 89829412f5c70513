//! One runtime asked for all that it has, in the form in which the state on disk is told.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use prost::Message;

use super::{
    grpc::{Connection, GrpcError},
    messages::{
        CONTAINER_STATUS, Container, ContainerStatusRequest, ContainerStatusResponse, ImageSpec,
        LIST_CONTAINERS, LIST_POD_SANDBOX, ListRequest, ListResponse, PodSandbox, VERSION, VersionRequest,
        VersionResponse,
    },
};
use crate::host::{
    RuntimeFacts,
    runtime::{SANDBOX_NAME, image_digest, image_id},
};

/// Of an answer. With labels and annotations a container takes one or two kilobytes; the kubelet takes 16 MiB
/// (kubernetes: staging/src/k8s.io/cri-client/pkg/remote_runtime.go).
const MAX_ANSWER_BYTES: usize = 8 << 20;
const MAX_SMALL_ANSWER_BYTES: usize = 256 << 10;
/// Sandboxes, and containers, that are taken of an answer. A node has some hundreds.
pub const MAX_ENTRIES: usize = 4096;
/// Of a text. Kubernetes's names have 253 characters at most; image references are longer only on purpose.
const MAX_TEXT_BYTES: usize = 512;
/// Of all texts of an answer together: honest ones have some hundred bytes for each container.
const MAX_TEXTS_BYTES: usize = 4 << 20;
/// Images that are asked for one by one, in one go.
const MAX_STATUSES: usize = 64;

/// What a runtime has said.
#[derive(Debug, Default)]
pub struct Answer {
    /// By id: containers and sandboxes.
    pub facts: HashMap<String, RuntimeFacts>,
    /// There was more than is taken.
    pub cut: bool,
}

impl Answer {
    fn keep(&mut self, id: String, facts: RuntimeFacts, room_bytes: &mut usize) {
        let texts = [&facts.name, &facts.image, &facts.pod_namespace, &facts.pod_name, &facts.pod_uid];
        let bytes: usize = texts.into_iter().flatten().map(String::len).sum();
        match room_bytes.checked_sub(bytes) {
            Some(left) => {
                *room_bytes = left;
                self.facts.insert(id, facts);
            }
            None => self.cut = true,
        }
    }
}

/// Asks for everything. Where the list does not tell a container's image by name (before Kubernetes 1.28), that is asked
/// for by itself if `wants` the container. No time limit: the caller's.
///
/// # Errors
/// The first question that was not answered. A question about one image that is not answered is none.
pub async fn ask(socket: &Path, wants: impl Fn(&str) -> bool) -> Result<Answer, GrpcError> {
    let runtime = Connection::open(socket).await?;
    let version = VersionRequest { version: "0.1.0".to_owned() };
    let version: VersionResponse = runtime.ask(VERSION, &version, MAX_SMALL_ANSWER_BYTES).await?;
    let name = runtime_name(&version.runtime_name);
    // The sandboxes last: one that a listed container is in is listed, too.
    let containers: ListResponse = runtime.ask(LIST_CONTAINERS, &ListRequest {}, MAX_ANSWER_BYTES).await?;
    let sandboxes: ListResponse = runtime.ask(LIST_POD_SANDBOX, &ListRequest {}, MAX_ANSWER_BYTES).await?;
    let mut answer = Answer {
        facts: HashMap::new(),
        cut: containers.items.len() > MAX_ENTRIES || sandboxes.items.len() > MAX_ENTRIES,
    };
    let mut room_bytes = MAX_TEXTS_BYTES;
    for item in sandboxes.items.into_iter().take(MAX_ENTRIES) {
        // Each by itself: one that is garbage hides no other.
        let Ok(sandbox) = PodSandbox::decode(item) else { continue };
        if let Some((id, facts)) = of_sandbox(sandbox, name) {
            answer.keep(id, facts, &mut room_bytes);
        }
    }
    let mut nameless = HashSet::new();
    for item in containers.items.into_iter().take(MAX_ENTRIES) {
        let Ok(container) = Container::decode(item) else { continue };
        let Some((id, mut facts)) = of_container(container, name) else { continue };
        if let Some(pod) = facts.pod_sandbox_id.as_ref().and_then(|id| answer.facts.get(id)) {
            facts.pod_namespace = pod.pod_namespace.clone();
            facts.pod_name = pod.pod_name.clone();
            facts.pod_uid = pod.pod_uid.clone();
        }
        if facts.image.is_none() && wants(&id) && nameless.len() < MAX_STATUSES {
            nameless.insert(id.clone());
        }
        answer.keep(id, facts, &mut room_bytes);
    }
    for id in nameless {
        let question = ContainerStatusRequest { container_id: id.clone() };
        let status =
            runtime.ask::<ContainerStatusResponse>(CONTAINER_STATUS, &question, MAX_SMALL_ANSWER_BYTES);
        // It may be gone meanwhile.
        let Ok(ContainerStatusResponse { status: Some(status) }) = status.await else { continue };
        if let Some(facts) = answer.facts.get_mut(&id) {
            facts.image = image(status.image.as_ref(), &status.image_ref);
            facts.image_digest = facts.image_digest.take().or_else(|| image_digest(&status.image_ref));
        }
    }
    Ok(answer)
}

/// The runtimes by the names that they give themselves: containerd (internal/cri/constants), CRI-O (server/version.go),
/// cri-dockerd (core/docker_service.go).
fn runtime_name(name: &str) -> Option<&'static str> {
    ["containerd", "cri-o", "docker"].into_iter().find(|known| *known == name)
}

fn of_sandbox(sandbox: PodSandbox, runtime: Option<&str>) -> Option<(String, RuntimeFacts)> {
    let id = id(sandbox.id)?;
    let pod = sandbox.metadata.unwrap_or_default();
    let facts = RuntimeFacts {
        runtime: runtime.map(str::to_owned),
        id: Some(id.clone()),
        name: Some(SANDBOX_NAME.to_owned()),
        pod_namespace: text(pod.namespace),
        pod_name: text(pod.name),
        pod_uid: text(pod.uid),
        pod_sandbox: true,
        pod_sandbox_id: Some(id.clone()),
        created_unix_ns: Some(sandbox.created_at).filter(|time| *time > 0),
        ..RuntimeFacts::default()
    };
    Some((id, facts))
}

fn of_container(container: Container, runtime: Option<&str>) -> Option<(String, RuntimeFacts)> {
    let own_id = id(container.id)?;
    let name = text(container.metadata.unwrap_or_default().name);
    let asked_for = container.image.as_ref();
    let specified = asked_for.map(|image| image.user_specified_image.as_str()).unwrap_or_default();
    let facts = RuntimeFacts {
        runtime: runtime.map(str::to_owned),
        id: Some(own_id.clone()),
        name: name.clone(),
        image: image(asked_for, &container.image_ref),
        pod_container: name,
        pod_sandbox_id: id(container.pod_sandbox_id),
        image_id: image_id(&container.image_id)
            .or_else(|| image_id(&container.image_ref))
            .or_else(|| image_id(asked_for.map(|image| image.image.as_str()).unwrap_or_default())),
        image_digest: [&container.image_ref, specified]
            .into_iter()
            .find_map(|reference| reference.contains('@').then(|| image_digest(reference)).flatten()),
        created_unix_ns: Some(container.created_at).filter(|time| *time > 0),
        ..RuntimeFacts::default()
    };
    Some((own_id, facts))
}

/// The image by name: as the user wrote it, else as it was asked for, else as the runtime calls it. An id is no name.
fn image(asked_for: Option<&ImageSpec>, image_ref: &str) -> Option<String> {
    let asked_for = asked_for.map(|image| [image.user_specified_image.as_str(), image.image.as_str()]);
    let named = |text: &&str| !text.is_empty() && image_id(text).is_none();
    let name = asked_for.into_iter().flatten().chain([image_ref]).find(named)?;
    text(name.to_owned())
}

/// An id as all CRI runtimes give them; anything else is none of theirs.
fn id(id: String) -> Option<String> {
    super::is_id(&id).then_some(id)
}

/// Bounded; what is empty is not there.
fn text(mut text: String) -> Option<String> {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    // What was cut off is not kept either.
    text.shrink_to_fit();
    (!text.is_empty()).then_some(text)
}
