//! containerd, and what has one inside: the bundle of each task, STATE/io.containerd.runtime.v2.task/NAMESPACE/ID
//! (containerd: runtime/v2/bundle.go), with config.json and, since the shim runs, init.pid.

use std::path::{Path, PathBuf};

use super::{
    files::{Files, unix_ns},
    kubernetes, oci,
};
use crate::host::RuntimeFacts;

const TASKS: &str = "io.containerd.runtime.v2.task";
/// State directories below /run: containerd's own, docker's managed containerd (moby:
/// libcontainerd/supervisor/remote_daemon.go), k3s and rke2, k0s.
const STATES: [&str; 4] = ["containerd", "docker/containerd/daemon", "k3s/containerd", "k0s/containerd"];
/// docker's namespace in containerd, and that of its plugins (moby: daemon/config).
const MOBY: [&str; 2] = ["moby", "plugins.moby"];

/// Facts, and the bundle's config.json.
pub fn facts(files: &mut Files, run: &Path, id: &str) -> Option<(RuntimeFacts, PathBuf)> {
    let (namespace, bundle) = STATES.iter().find_map(|state| {
        files.entries(&run.join(state).join(TASKS)).into_iter().find_map(|namespace| {
            let bundle = namespace.join(id);
            let name = namespace.file_name()?.to_string_lossy().into_owned();
            bundle.is_dir().then_some((name, bundle))
        })
    })?;
    let config = bundle.join("config.json");
    let notes = oci::annotations(files, &config);
    let mut facts = kubernetes::of_containerd(&notes);
    let docker = MOBY.contains(&namespace.as_str());
    facts.runtime = Some(if docker { "docker" } else { "containerd" }.into());
    facts.id = Some(id.to_owned());
    if !docker {
        // nerdctl hands its own labels on (pkg/cmd/container/create.go, pkg/labels/labels.go); what `ctr` runs has no other
        // name than its id.
        let named = notes.get("nerdctl/name").filter(|name| !name.is_empty()).cloned();
        facts.name = facts.name.or(named).or_else(|| Some(id.to_owned()));
        facts.image_digest = facts
            .image
            .as_deref()
            .and_then(|image| image.contains('@').then(|| kubernetes::digest(image)).flatten());
    }
    facts.init_pid = files.text(&bundle.join("init.pid")).and_then(|text| text.trim().parse().ok());
    facts.created_unix_ns = notes.get("nerdctl/created").map(String::as_str).and_then(unix_ns);
    Some((facts, config))
}
