//! podman and CRI-O, which share containers/storage: LIB/containers/storage/DRIVER-containers has containers.json, the
//! list of all (containers/storage: containers.go), and ID/userdata with the bundle's config.json.
//!
//! Only root's storage: that of users is theirs to write, and to hang a file system of their own into.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    files::{Files, bounded, unix_ns},
    kubernetes, oci,
};
use crate::host::RuntimeFacts;

/// The lists of containers: those that outlive a reboot, and those that need not (since containers/storage 1.39).
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// The image's id.
    #[serde(default)]
    image: String,
    /// JSON in a text; see [`Metadata`].
    #[serde(default)]
    metadata: String,
    created: Option<String>,
}

/// podman's (libpod/storage.go) and CRI-O's (internal/storage/runtime.go) `RuntimeContainerMetadata`; what a pod is
/// called only the latter says.
#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "image-name", default)]
    image_name: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "pod-name", default)]
    pod_name: String,
}

/// Facts, and the bundle's config.json.
pub fn facts(files: &mut Files, lib: &Path, run: &Path, id: &str) -> Option<(RuntimeFacts, PathBuf)> {
    let storage = lib.join("containers/storage");
    let drivers = files
        .entries(&storage)
        .into_iter()
        .filter(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-containers")));
    for dir in drivers.collect::<Vec<_>>() {
        let kept = dir.join(id).join("userdata");
        if !kept.is_dir() {
            continue;
        }
        // The same below /run is gone after a reboot; CRI-O's runtime takes its bundle from there.
        let driver = dir.file_name().map(Path::new).unwrap_or(Path::new(""));
        let ran = run.join("containers/storage").join(driver).join(id).join("userdata");
        let config =
            [&ran, &kept].map(|dir| dir.join("config.json")).into_iter().find(|config| config.is_file());
        let config = config.unwrap_or_else(|| kept.join("config.json"));
        let notes = oci::annotations(files, &config);
        // What manages it says so. The list, which grows with the number of containers, is read only where the annotations
        // do not tell everything.
        let manager = notes.get("io.container.manager").map(String::as_str);
        let entry = if manager == Some("cri-o") { None } else { entry(files, &dir, id) };
        let metadata =
            entry.as_ref().and_then(|entry| serde_json::from_str::<Metadata>(&entry.metadata).ok());
        let metadata = metadata.unwrap_or_default();
        // podman's pods carry some of CRI-O's annotations, too; but only CRI-O's storage knows pods.
        let crio = match manager {
            Some(manager) => manager == "cri-o",
            None => !metadata.pod_name.is_empty() || notes.contains_key("io.kubernetes.cri-o.SandboxName"),
        };
        let mut facts = if crio { kubernetes::of_crio(&notes) } else { RuntimeFacts::default() };
        facts.runtime = Some(if crio { "cri-o" } else { "podman" }.into());
        facts.id = Some(id.to_owned());
        // podman's pause container is called so by nothing else than its pod's id.
        let listed = entry.as_ref().and_then(|entry| entry.names.first()).map(String::as_str);
        facts.name = facts.name.or_else(|| bounded(listed.unwrap_or(&metadata.name)));
        facts.image = facts.image.or_else(|| bounded(&metadata.image_name));
        if let Some(entry) = &entry {
            facts.image_id = facts.image_id.or_else(|| kubernetes::image_id(&entry.image));
            facts.created_unix_ns =
                facts.created_unix_ns.or_else(|| entry.created.as_deref().and_then(unix_ns));
        }
        // conmon writes it where podman and CRI-O tell it to.
        facts.init_pid = files.text(&ran.join("pidfile")).and_then(|text| text.trim().parse().ok());
        return Some((facts, config));
    }
    None
}

fn entry(files: &mut Files, dir: &Path, id: &str) -> Option<Entry> {
    LISTS
        .iter()
        .find_map(|list| files.json::<Vec<Entry>>(&dir.join(list))?.into_iter().find(|entry| entry.id == id))
}

/// The digest under which the image was pulled: DRIVER-images/images.json (containers/storage: images.go).
pub fn digest(files: &mut Files, lib: &Path, image_id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Image {
        id: String,
        #[serde(default)]
        digest: String,
    }
    let bare = image_id.strip_prefix("sha256:").unwrap_or(image_id);
    let images = files
        .entries(&lib.join("containers/storage"))
        .into_iter()
        .filter(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-images")));
    for dir in images.collect::<Vec<_>>() {
        let list: Vec<Image> = files.json(&dir.join("images.json")).unwrap_or_default();
        if let Some(image) = list.into_iter().find(|image| image.id == bare) {
            return kubernetes::digest(&image.digest);
        }
    }
    None
}
