//! A small disk for each runtime, with the files as it writes them.

mod declared;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::*;

const ID: &str = "4f1c0b7be2d5a1d6c0f2a9e8d7c6b5a4938271605f4e3d2c1b0a99887766554f";
const SANDBOX: &str = "aa1c0b7be2d5a1d6c0f2a9e8d7c6b5a4938271605f4e3d2c1b0a99887766554f";
const IMAGE: &str = "3ca126a3df8b0c11015bad1a1ea92848b9f1c3def279fe9cc0c09aa2a9cc67ef";
const DIGEST: &str = "sha256:504de8a4b4083b04932a28e78419333e29bf1a06037ed66564f7cb5ea064cdf4";
const UID: &str = "83b090de-9676-407c-99aa-d33dc6aa0c0d";
const CREATED: &str = "2024-05-01T10:00:00.5Z";
const CREATED_NS: i64 = 1_714_557_600_500_000_000;

struct Disk(PathBuf);

impl Disk {
    fn new(name: &str, files: &[(String, String)]) -> Self {
        let dir = std::env::temp_dir().join(format!("observer-runtime-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for (path, content) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Disk(dir)
    }

    fn roots(&self) -> Roots {
        let below = |name: &str| self.0.join(name);
        Roots {
            proc: below("proc"),
            cgroup: below("cgroup"),
            run: below("run"),
            lib: below("lib"),
            docker: below("lib/docker"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file(path: impl Into<String>, content: Value) -> (String, String) {
    let text = match content {
        Value::String(text) => text,
        other => other.to_string(),
    };
    (path.into(), text)
}

/// A configuration with these annotations.
fn config(annotations: Value) -> Value {
    json!({"ociVersion": "1.0.2", "process": {"user": {"uid": 0, "gid": 0}, "env": ["SECRET=x"]},
        "hostname": "h", "annotations": annotations})
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn pod(container: Option<&str>) -> RuntimeFacts {
    RuntimeFacts {
        pod_namespace: some("shop"),
        pod_name: some("web-0"),
        pod_uid: some(UID),
        pod_container: container.map(str::to_owned),
        pod_sandbox: container.is_none(),
        ..RuntimeFacts::default()
    }
}

struct Case {
    name: &'static str,
    id: &'static str,
    files: Vec<(String, String)>,
    expected: RuntimeFacts,
    /// A declaration is found.
    declared: bool,
}

fn docker_cases() -> Vec<Case> {
    // moby: container/container.go, `Container`.
    let container = |name: &str, labels: Value| {
        json!({"ID": ID, "Created": CREATED, "Name": format!("/{name}"), "Image": format!("sha256:{IMAGE}"),
            "State": {"Running": true, "Pid": 42}, "Config": {"Image": "nginx:1", "Labels": labels}})
    };
    let store = json!({"Repositories": {"nginx": {"nginx:1": format!("sha256:{IMAGE}"),
        format!("nginx@{DIGEST}"): format!("sha256:{IMAGE}")}}});
    let pod_labels = json!({"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID, "io.kubernetes.sandbox.id": SANDBOX,
        "io.kubernetes.docker.type": "container"});
    let docker = RuntimeFacts {
        runtime: some("docker"),
        id: some(ID),
        name: some("web"),
        image: some("nginx:1"),
        init_pid: Some(42),
        image_id: Some(format!("sha256:{IMAGE}")),
        created_unix_ns: Some(CREATED_NS),
        ..RuntimeFacts::default()
    };
    let state = format!("lib/docker/containers/{ID}/config.v2.json");
    let bundle = format!("run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{ID}");
    let k8s = format!("k8s_app_web-0_shop_{UID}_0");
    let pause = format!("k8s_POD_web-0_shop_{UID}_0");
    vec![
        Case {
            name: "docker with its own containerd",
            id: ID,
            files: vec![
                file(&state, container("web", json!({}))),
                file("lib/docker/image/overlay2/repositories.json", store),
                file(format!("{bundle}/config.json"), config(json!({}))),
                file(format!("{bundle}/init.pid"), json!("42")),
            ],
            expected: RuntimeFacts { image_digest: some(DIGEST), ..docker.clone() },
            declared: true,
        },
        Case {
            name: "docker with the system's containerd, images kept there",
            id: ID,
            files: vec![
                file(&state, {
                    let mut container = container("web", json!({}));
                    container["ImageManifest"] = json!({"digest": DIGEST});
                    container
                }),
                file(
                    format!("run/containerd/io.containerd.runtime.v2.task/moby/{ID}/config.json"),
                    config(json!({})),
                ),
            ],
            expected: RuntimeFacts { image_digest: some(DIGEST), ..docker.clone() },
            declared: true,
        },
        Case {
            name: "docker is only just writing its state: the shim knows the id, and runc the pid",
            id: ID,
            files: vec![
                file(&state, json!("{\"ID\":\"4f1")),
                file(format!("{bundle}/config.json"), config(json!({}))),
                file(
                    format!("run/docker/runtime-runc/moby/{ID}/state.json"),
                    json!({"id": ID, "init_process_pid": 42, "created": CREATED}),
                ),
            ],
            expected: RuntimeFacts {
                runtime: some("docker"),
                id: some(ID),
                init_pid: Some(42),
                created_unix_ns: Some(CREATED_NS),
                ..RuntimeFacts::default()
            },
            declared: true,
        },
        Case {
            name: "cri-dockerd",
            id: ID,
            files: vec![file(&state, container(&k8s, pod_labels.clone()))],
            expected: RuntimeFacts {
                runtime: some("docker"),
                name: Some(k8s),
                pod_sandbox_id: some(SANDBOX),
                ..complete_with(pod(Some("app")), &docker)
            },
            declared: false,
        },
        Case {
            name: "cri-dockerd's pause container",
            id: ID,
            files: vec![file(&state, container(&pause, pod_labels.clone()))],
            expected: RuntimeFacts {
                name: Some(pause),
                pod_sandbox_id: some(SANDBOX),
                ..complete_with(pod(None), &docker)
            },
            declared: false,
        },
        Case {
            name: "an image whose labels say that it is a pod",
            id: ID,
            files: vec![file(&state, container("web", pod_labels))],
            expected: docker,
            declared: false,
        },
    ]
}

fn complete_with(mut facts: RuntimeFacts, other: &RuntimeFacts) -> RuntimeFacts {
    complete(&mut facts, other.clone());
    facts
}

fn containerd_cases() -> Vec<Case> {
    let task = |state: &str, namespace: &str, id: &str, name: &str| {
        format!("run/{state}/io.containerd.runtime.v2.task/{namespace}/{id}/{name}")
    };
    // containerd: internal/cri/server/container_create.go, sandbox_run.go.
    let notes = |kind: &str| {
        json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": SANDBOX,
            "io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": UID})
    };
    let mut app = notes("container");
    app["io.kubernetes.cri.container-name"] = json!("app");
    app["io.kubernetes.cri.image-name"] = json!(format!("registry.example/app@{DIGEST}"));
    let containerd = RuntimeFacts { runtime: some("containerd"), ..RuntimeFacts::default() };
    vec![
        Case {
            name: "a pod's container, k3s",
            id: ID,
            files: vec![
                file(task("k3s/containerd", "k8s.io", ID, "config.json"), config(app)),
                file(task("k3s/containerd", "k8s.io", ID, "init.pid"), json!("42")),
                file(
                    format!("run/containerd/runc/k8s.io/{ID}/state.json"),
                    json!({"init_process_pid": 42, "created": CREATED, "config": {"labels": ["bundle=/elsewhere"]}}),
                ),
            ],
            expected: RuntimeFacts {
                id: some(ID),
                name: some("app"),
                image: Some(format!("registry.example/app@{DIGEST}")),
                image_digest: some(DIGEST),
                init_pid: Some(42),
                pod_sandbox_id: some(SANDBOX),
                created_unix_ns: Some(CREATED_NS),
                ..complete_with(pod(Some("app")), &containerd)
            },
            declared: true,
        },
        Case {
            name: "a pod's sandbox",
            id: SANDBOX,
            files: vec![file(task("containerd", "k8s.io", SANDBOX, "config.json"), config(notes("sandbox")))],
            expected: RuntimeFacts {
                id: some(SANDBOX),
                name: some("POD"),
                pod_sandbox_id: some(SANDBOX),
                ..complete_with(pod(None), &containerd)
            },
            declared: true,
        },
        Case {
            name: "ctr",
            id: "web",
            files: vec![file(task("containerd", "default", "web", "config.json"), config(json!({})))],
            expected: RuntimeFacts { id: some("web"), name: some("web"), ..containerd.clone() },
            declared: true,
        },
        Case {
            name: "nerdctl",
            id: ID,
            files: vec![file(
                task("containerd", "default", ID, "config.json"),
                config(json!({"nerdctl/name": "web", "nerdctl/namespace": "default"})),
            )],
            expected: RuntimeFacts { id: some(ID), name: some("web"), ..containerd },
            declared: true,
        },
    ]
}

fn storage_cases() -> Vec<Case> {
    let lib = |name: &str| format!("lib/containers/storage/overlay-containers/{name}");
    // podman: libpod/container_internal.go, generateSpec; as podman 4.3 wrote them.
    let podman_notes = json!({"io.container.manager": "libpod", "io.kubernetes.cri-o.Created": CREATED,
        "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "my-pod",
        "io.podman.annotations.privileged": "FALSE", "org.opencontainers.image.stopSignal": "15"});
    let metadata =
        json!({"image-name": "localhost/web:1", "image-id": IMAGE, "name": "web", "created-at": 1});
    let list = |metadata: Value, name: &str| {
        json!([{"id": SANDBOX, "names": ["other"]}, {"id": ID, "names": [name], "image": IMAGE,
            "layer": "x", "metadata": metadata.to_string(), "created": CREATED}])
    };
    let images = json!([{"id": IMAGE, "digest": DIGEST, "names": ["localhost/web:1"]}]);
    // CRI-O: server/container_create_linux.go, server/sandbox_run_linux.go.
    let crio_notes = |kind: &str, container: &str| {
        json!({"io.container.manager": "cri-o", "io.kubernetes.cri-o.ContainerType": kind,
            "io.kubernetes.cri-o.SandboxID": SANDBOX, "io.kubernetes.cri-o.Created": CREATED,
            "io.kubernetes.cri-o.SandboxName": format!("k8s_POD_web-0_shop_{UID}_0"),
            "io.kubernetes.cri-o.ImageName": "registry.example/app:1", "io.kubernetes.cri-o.ImageRef": IMAGE,
            "io.kubernetes.container.name": container, "io.kubernetes.pod.name": "web-0",
            "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID})
    };
    let common = RuntimeFacts {
        id: some(ID),
        image_id: Some(format!("sha256:{IMAGE}")),
        image_digest: some(DIGEST),
        created_unix_ns: Some(CREATED_NS),
        ..RuntimeFacts::default()
    };
    let crio = RuntimeFacts {
        runtime: some("cri-o"),
        image: some("registry.example/app:1"),
        pod_sandbox_id: some(SANDBOX),
        ..common.clone()
    };
    let images = file("lib/containers/storage/overlay-images/images.json", images);
    let config_path = lib(&format!("{ID}/userdata/config.json"));
    vec![
        Case {
            name: "podman, in one of its pods",
            id: ID,
            files: vec![
                file(&config_path, config(podman_notes)),
                file(lib("containers.json"), list(metadata, "web")),
                file(
                    format!("run/containers/storage/overlay-containers/{ID}/userdata/pidfile"),
                    json!("42\n"),
                ),
                images.clone(),
            ],
            expected: RuntimeFacts {
                runtime: some("podman"),
                name: some("web"),
                image: some("localhost/web:1"),
                init_pid: Some(42),
                ..common
            },
            declared: true,
        },
        Case {
            name: "CRI-O, with crun",
            id: ID,
            files: vec![
                file(&config_path, config(crio_notes("container", "app"))),
                file(
                    lib("volatile-containers.json"),
                    list(json!({"pod-name": "x"}), &format!("k8s_app_web-0_shop_{UID}_0")),
                ),
                file(
                    format!("run/crun/{ID}/status"),
                    json!({"pid": 42, "cgroup-path": "/kubepods.slice", "rootfs": "/r", "systemd-cgroup": true,
                        "bundle": "/run/containers/x", "created": "2025-01-01T00:00:00Z", "detached": false}),
                ),
                images.clone(),
            ],
            expected: RuntimeFacts {
                name: some("app"),
                init_pid: Some(42),
                ..complete_with(pod(Some("app")), &crio)
            },
            declared: true,
        },
        Case {
            name: "CRI-O's sandbox",
            id: ID,
            files: vec![file(&config_path, config(crio_notes("sandbox", "POD"))), images],
            expected: RuntimeFacts { name: some("POD"), ..complete_with(pod(None), &crio) },
            declared: true,
        },
    ]
}

fn other_cases() -> Vec<Case> {
    vec![
        Case {
            name: "runc alone",
            id: "web",
            files: vec![
                file(
                    "run/runc/web/state.json",
                    json!({"id": "web", "init_process_pid": 42, "created": CREATED,
                        "config": {"labels": ["a=b", "bundle=/var/lib/bundles/web"]}}),
                ),
                file("lib/bundles/web/config.json", config(json!({}))),
            ],
            expected: RuntimeFacts {
                runtime: some("runc"),
                id: some("web"),
                init_pid: Some(42),
                created_unix_ns: Some(CREATED_NS),
                ..RuntimeFacts::default()
            },
            declared: true,
        },
        Case {
            name: "crun alone",
            id: "web",
            files: vec![
                file("run/crun/web/status", json!({"pid": 42, "bundle": "/run/b", "created": CREATED})),
                file("run/b/config.json", config(json!({}))),
            ],
            expected: RuntimeFacts {
                runtime: some("crun"),
                id: some("web"),
                init_pid: Some(42),
                created_unix_ns: Some(CREATED_NS),
                ..RuntimeFacts::default()
            },
            declared: true,
        },
        Case {
            name: "systemd-nspawn",
            id: "box",
            files: vec![file(
                "run/systemd/machines/box",
                json!(
                    "# This is private data. Do not parse.\nNAME=box\nSCOPE=machine-box.scope\nSERVICE=systemd-nspawn\n\
                     ROOT=/var/lib/machines/box\nID=0\nLEADER=42\nCLASS=container\nREALTIME=1714557600500000\n"
                ),
            )],
            expected: RuntimeFacts {
                runtime: some("systemd-nspawn"),
                id: some("box"),
                name: some("box"),
                init_pid: Some(42),
                created_unix_ns: Some(CREATED_NS),
                ..RuntimeFacts::default()
            },
            declared: false,
        },
        Case {
            name: "LXC",
            id: "c1",
            files: vec![file("lib/lxc/c1/config", json!("lxc.uts.name = c1\n"))],
            expected: RuntimeFacts {
                runtime: some("lxc"),
                id: some("c1"),
                name: some("c1"),
                ..RuntimeFacts::default()
            },
            declared: true,
        },
    ]
}

#[test]
fn every_runtime_names_its_containers() {
    let cases = [docker_cases(), containerd_cases(), storage_cases(), other_cases()];
    for (number, case) in cases.into_iter().flatten().enumerate() {
        let disk = Disk::new(&format!("case{number}"), &case.files);
        let found = details(&disk.roots(), case.id).unwrap_or_else(|| panic!("{}: nothing", case.name));
        assert_eq!(found.facts, case.expected, "{}", case.name);
        assert_eq!(found.declared.is_some(), case.declared, "{}: {:?}", case.name, found.problems);
        assert!(
            !format!("{found:?}").contains("SECRET"),
            "{}: the environment is nobody's business",
            case.name
        );
        // The pipeline's question is the same, but for what costs more files.
        let quick = facts(&disk.roots(), case.id).unwrap();
        let digest = quick.image_digest.clone().or_else(|| found.facts.image_digest.clone());
        assert_eq!(RuntimeFacts { image_digest: digest, ..quick }, found.facts, "{}", case.name);
        // Another id, and one that only begins like it, is nobody's.
        assert_eq!(facts(&disk.roots(), &case.id[1..]), None, "{}", case.name);
    }
}

#[test]
fn what_cannot_be_read_is_said_and_hides_nothing_else() {
    let bundle = format!("run/containerd/io.containerd.runtime.v2.task/default/{ID}");
    let disk = Disk::new("problems", &[file(format!("{bundle}/config.json"), json!("{\"annotations\": 7"))]);
    let found = details(&disk.roots(), ID).unwrap();
    assert_eq!((found.facts.name.as_deref(), found.declared), (Some(ID), None));
    assert!(found.problems.iter().all(|problem| problem.contains("config.json")), "{:?}", found.problems);
    assert!(!found.problems.is_empty());

    let state = json!({"init_process_pid": 42, "config": {"labels": ["bundle=/srv/b"]}});
    let disk = Disk::new("elsewhere", &[file("run/runc/web/state.json", state)]);
    let found = details(&disk.roots(), "web").unwrap();
    assert_eq!(found.declared, None);
    assert_eq!(found.problems, ["/srv/b/config.json: not below a directory that is configured"]);
}

#[test]
fn references_digests_and_ids() {
    let hash = &DIGEST["sha256:".len()..];
    let digest = |text: &str| kubernetes::pulled_digest(text);
    assert_eq!(digest(&format!("registry.example:5000/a/b:1@{DIGEST}")).as_deref(), Some(DIGEST));
    for none in [DIGEST, "nginx:1", "nginx@sha256:12", "nginx@", &format!("nginx@sha512:{hash}")] {
        assert_eq!(digest(none), None, "{none}");
    }
    assert_eq!(kubernetes::image_id(hash).as_deref(), Some(DIGEST));
    assert_eq!(kubernetes::image_id(DIGEST).as_deref(), Some(DIGEST));
    for none in ["", "nginx", &hash[1..], &hash.to_uppercase()] {
        assert_eq!(kubernetes::image_id(none), None, "{none}");
    }
}

#[test]
fn hostile_ids_are_no_paths() {
    let state = json!({"ID": "abc", "Name": "/web"});
    let disk = Disk::new("hostile", &[file("lib/docker/containers/abc/config.v2.json", state)]);
    assert!(facts(&disk.roots(), "abc").is_some());
    let long = "a".repeat(300);
    for hostile in ["../containers/abc", "", "..", ".", "a/b", "abc\0", "abc/", "./abc", &long, "ab\nc", "ä"]
    {
        assert_eq!(facts(&disk.roots(), hostile), None, "{hostile:?}");
    }
}

#[test]
fn a_virtual_machine_is_no_container() {
    let text = json!("NAME=vm\nCLASS=vm\nSERVICE=libvirt-qemu\nLEADER=42\n");
    let disk = Disk::new("vm", &[file("run/systemd/machines/vm", text)]);
    assert_eq!(facts(&disk.roots(), "vm"), None);
}

/// Facts as older versions recorded them.
#[test]
fn old_recordings_are_understood() {
    let old = json!({"runtime": "docker", "id": ID, "name": "web", "image": null, "init_pid": 42,
        "pod_namespace": null, "pod_name": null, "pod_uid": null, "pod_container": null});
    let facts: RuntimeFacts = serde_json::from_value(old).unwrap();
    assert_eq!((facts.name.as_deref(), facts.pod_sandbox, facts.image_id), (Some("web"), false, None));
}
