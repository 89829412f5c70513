//! What container runtimes leave on disk. Files are other people's: bounded, parsed leniently, never trusted
//! beyond naming things.

use std::{fs, io::Read, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{Roots, RuntimeFacts};

/// Larger than any real state file.
const MAX_FILE: u64 = 4 << 20;

/// Facts of the container with this id, from the first runtime that knows it.
pub fn facts(roots: &Roots, id: &str) -> Option<RuntimeFacts> {
    // Ids become path components: nothing but what runtimes allow in them.
    let plain = !id.is_empty()
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.+".contains(&b))
        && id != ".."
        && id != ".";
    if !plain {
        return None;
    }
    let mut facts = docker(&roots.docker, id).or_else(|| containerd(&roots.run, id));
    if let Some(runc) = runc(&roots.run, id) {
        let facts = facts.get_or_insert_with(RuntimeFacts::default);
        facts.init_pid = facts.init_pid.or(runc.init_pid);
        facts.runtime.get_or_insert_with(|| runc.runtime.unwrap_or_else(|| "runc".into()));
    }
    facts
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// docker: DATA-ROOT/containers/ID/config.v2.json.
fn docker(root: &Path, id: &str) -> Option<RuntimeFacts> {
    let config: Value = read_json(&root.join("containers").join(id).join("config.v2.json"))?;
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let label = |name: &str| config.pointer("/Config/Labels")?.get(name)?.as_str().map(str::to_owned);
    Some(RuntimeFacts {
        runtime: Some("docker".into()),
        id: text("/ID"),
        name: text("/Name").map(|name| name.trim_start_matches('/').to_owned()),
        image: text("/Config/Image"),
        init_pid: config
            .pointer("/State/Pid")
            .and_then(Value::as_u64)
            .filter(|pid| *pid != 0)
            .map(|pid| pid as u32),
        pod_namespace: label("io.kubernetes.pod.namespace"),
        pod_name: label("io.kubernetes.pod.name"),
        pod_uid: label("io.kubernetes.pod.uid"),
        pod_container: label("io.kubernetes.container.name"),
    })
}

/// containerd: RUN/containerd/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json, with the annotations of its
/// CRI plugin.
fn containerd(run: &Path, id: &str) -> Option<RuntimeFacts> {
    let tasks = run.join("containerd/io.containerd.runtime.v2.task");
    let (namespace, dir) = fs::read_dir(tasks).ok()?.flatten().find_map(|namespace| {
        let dir = namespace.path().join(id);
        dir.is_dir().then(|| (namespace.file_name().to_string_lossy().into_owned(), dir))
    })?;
    let config: Value = read_json(&dir.join("config.json")).unwrap_or(Value::Null);
    let note = |name: &str| config.get("annotations")?.get(name)?.as_str().map(str::to_owned);
    let init_pid = fs::read_to_string(dir.join("init.pid")).ok().and_then(|text| text.trim().parse().ok());
    let container = note("io.kubernetes.cri.container-name");
    let name = container.clone().or_else(|| (namespace != "moby").then(|| id.to_owned()));
    Some(RuntimeFacts {
        runtime: Some(if namespace == "moby" { "docker" } else { "containerd" }.into()),
        id: Some(id.to_owned()),
        name,
        image: note("io.kubernetes.cri.image-name"),
        init_pid,
        pod_namespace: note("io.kubernetes.cri.sandbox-namespace"),
        pod_name: note("io.kubernetes.cri.sandbox-name"),
        pod_uid: note("io.kubernetes.cri.sandbox-uid"),
        pod_container: container,
    })
}

#[derive(Deserialize)]
struct RuncState {
    init_process_pid: Option<u32>,
}

/// runc and crun alone: RUN/runc/ID/state.json, RUN/crun/ID/status; docker's and containerd's runc keep theirs in
/// roots of their own.
fn runc(run: &Path, id: &str) -> Option<RuntimeFacts> {
    let below = |dir: &str| {
        let mut names: Vec<_> =
            fs::read_dir(run.join(dir)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
    };
    let roots = [("runc", run.join("runc")), ("docker", run.join("docker/runtime-runc/moby"))]
        .into_iter()
        .chain(below("containerd/runc").into_iter().map(|root| ("containerd", root)));
    for (runtime, root) in roots {
        if let Some(state) = read_json::<RuncState>(&root.join(id).join("state.json")) {
            return Some(RuntimeFacts {
                runtime: Some(runtime.into()),
                init_pid: state.init_process_pid,
                ..Default::default()
            });
        }
    }
    let status: Value = read_json(&run.join("crun").join(id).join("status"))?;
    Some(RuntimeFacts {
        runtime: Some("crun".into()),
        init_pid: status.get("pid").and_then(Value::as_u64).map(|pid| pid as u32),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> (std::path::PathBuf, Roots) {
        let dir = std::env::temp_dir().join(format!("observer-runtime-{}", std::process::id()));
        let roots = Roots {
            proc: dir.join("proc"),
            cgroup: dir.join("cg"),
            run: dir.join("run"),
            docker: dir.join("d"),
        };
        (dir, roots)
    }

    #[test]
    fn docker_and_runc_state_are_put_together_and_hostile_ids_are_not_paths() {
        let (dir, roots) = roots();
        let d = roots.docker.join("containers/abc");
        fs::create_dir_all(&d).unwrap();
        fs::write(
            d.join("config.v2.json"),
            r#"{"ID":"abc","Name":"/web","Config":{"Image":"nginx:1"},"State":{"Pid":0}}"#,
        )
        .unwrap();
        let r = roots.run.join("docker/runtime-runc/moby/abc");
        fs::create_dir_all(&r).unwrap();
        fs::write(r.join("state.json"), r#"{"id":"abc","init_process_pid":42}"#).unwrap();
        let got = facts(&roots, "abc").unwrap();
        assert_eq!(
            (got.name.as_deref(), got.image.as_deref(), got.init_pid),
            (Some("web"), Some("nginx:1"), Some(42))
        );
        assert_eq!(got.runtime.as_deref(), Some("docker"));
        for hostile in ["../containers/abc", "", "..", ".", "a/b", "abc\0"] {
            assert_eq!(facts(&roots, hostile), None, "{hostile:?}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
