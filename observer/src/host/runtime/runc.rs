//! runc: ROOT/ID/state.json (runc: libcontainer/container_linux.go, `State`). Whoever uses runc gives it a root of its own.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::{Files, unix_ns};
use crate::host::RuntimeFacts;

#[derive(Deserialize)]
struct State {
    init_process_pid: Option<u32>,
    created: Option<String>,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    /// `bundle=PATH` first, then the annotations as `name=value`.
    #[serde(default)]
    labels: Vec<String>,
}

/// Facts, and the bundle's config.json where the state names one.
pub fn facts(files: &mut Files, run: &Path, id: &str) -> Option<(RuntimeFacts, Option<PathBuf>)> {
    // By themselves, under docker (moby: daemon/runtime_unix.go), and under containerd (containerd:
    // pkg/process/init.go, RuncRoot, and below it the namespace).
    let roots = [("runc", run.join("runc")), ("docker", run.join("docker/runtime-runc/moby"))]
        .into_iter()
        .chain(files.entries(&run.join("containerd/runc")).into_iter().map(|root| {
            let moby = root.file_name().is_some_and(|name| name == "moby");
            (if moby { "docker" } else { "containerd" }, root)
        }));
    for (runtime, root) in roots.collect::<Vec<_>>() {
        if let Some(state) = files.json::<State>(&root.join(id).join("state.json")) {
            let bundle = state.config.labels.iter().find_map(|label| label.strip_prefix("bundle="));
            let facts = RuntimeFacts {
                runtime: Some(runtime.into()),
                id: Some(id.to_owned()),
                init_pid: state.init_process_pid.filter(|pid| *pid != 0),
                created_unix_ns: state.created.as_deref().and_then(unix_ns),
                ..RuntimeFacts::default()
            };
            return Some((facts, bundle.map(|bundle| Path::new(bundle).join("config.json"))));
        }
    }
    None
}
