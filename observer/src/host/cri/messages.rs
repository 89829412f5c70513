//! The messages of the CRI that are used here, with the fields that are read and no others.
//!
//! From k8s.io/cri-api, pkg/apis/runtime/v1/api.proto; the numbers are those of its fields. What has none here is passed
//! over, and a field that an older runtime does not send is empty.

use prost::Message;

/// `RuntimeService`'s methods.
pub const VERSION: &str = "/runtime.v1.RuntimeService/Version";
pub const LIST_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
pub const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
pub const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";

#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {
    /// The kubelet's API version, `0.1.0` (kubernetes: pkg/kubelet/kuberuntime/kuberuntime_manager.go).
    #[prost(string, tag = "1")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
}

/// `ListPodSandboxRequest` and `ListContainersRequest` without a filter: everything, running or not.
#[derive(Clone, PartialEq, Message)]
pub struct ListRequest {}

/// `ListPodSandboxResponse` and `ListContainersResponse`, whose only field 1 is `repeated` messages: on the wire the same as
/// byte strings. So each is decoded by itself, and only as many as are wanted: two bytes of an answer could otherwise
/// become a structure of hundreds.
#[derive(Clone, PartialEq, Message)]
pub struct ListResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub items: Vec<bytes::Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Unix time, ns.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    /// Whatever the runtime calls the image by: its id, or a reference with a digest.
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// Unix time, ns.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    /// Since 1.29.
    #[prost(string, tag = "10")]
    pub image_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ImageSpec {
    /// What the kubelet asked the container to be made of: often the image's id.
    #[prost(string, tag = "1")]
    pub image: String,
    /// As the pod's specification has it; since 1.28.
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatus {
    /// With the reference that the runtime itself knows the image by.
    #[prost(message, optional, tag = "8")]
    pub image: Option<ImageSpec>,
    #[prost(string, tag = "9")]
    pub image_ref: String,
}
