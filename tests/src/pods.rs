//! Kubernetes pods without Kubernetes: a containerd of the tests' own with its CRI plugin, asked as the kubelet asks it.
//!
//! The pods have the host's network, so no network plugin is needed, and cgroups below this test process's own, in the
//! layout of the kubelet's cgroupfs driver.

use crate::cri::{self, Cri};
use crate::shell::{ARGS, MOUNTED_AT, Said, Shell};
use crate::{cgroup, containerd, host, lab, own, rootfs, scratch, wait};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// What pods' images are called here.
pub const IMAGE: &str = "docker.io/library/observer-live:1";
/// The pods' namespace of Kubernetes.
pub const NAMESPACE: &str = "observer-shop";

/// The host's network and pids (containers take both from the sandbox), and IPC of the pod's own.
const NAMESPACES: cri::NamespaceOption =
    cri::NamespaceOption { network: cri::NODE, pid: cri::NODE, ipc: cri::POD };

#[derive(Debug)]
pub struct Runtime {
    cri: Cri,
    /// What /run is to this containerd: its state is in `containerd` below it, as is its socket.
    pub run: PathBuf,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Started at the first call; `None`, and said so, where containerd is not installed.
pub fn get(attacks: &Path) -> Option<&'static Runtime> {
    if !lab::installed("containerd") || !lab::installed("ctr") || !lab::installed("runc") {
        return None;
    }
    Some(RUNTIME.get_or_init(|| start(attacks)))
}

fn start(attacks: &Path) -> Runtime {
    // The shims' sockets are there wherever containerd itself is.
    scratch::forget(["/run/containerd/s", "/run/containerd"].map(PathBuf::from).into());
    let dir = scratch::subdir("cri");
    let run = dir.join("run");
    std::fs::create_dir_all(run.join("containerd")).expect("make containerd's directory");
    let socket = run.join("containerd/containerd.sock");
    // The tests may be run without the right to lower oom_score_adj.
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{1}/containerd\"\n\
         [grpc]\n  address = \"{2}\"\n[ttrpc]\n  address = \"{0}/ttrpc\"\n[debug]\n  address = \"{0}/debug\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{0}/opt\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{IMAGE}\"\n  restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{0}/cni\"\n  conf_dir = \"{0}/cni\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  Root = \"{1}/runc\"\n",
        dir.display(),
        run.display(),
        socket.display(),
    );
    containerd::launch(&dir, &config);
    let cri = Cri::new(&socket);
    let up = wait::until_true(Duration::from_secs(30), || {
        cri.ask::<cri::Empty>("/runtime.v1.RuntimeService/Version", &cri::Empty {}).is_ok()
    });
    assert!(up, "containerd's CRI is not up:\n{}", crate::agent::tail(&dir.join("log")));
    let image = containerd::archive(&dir, rootfs::tar(attacks));
    let mut import = Command::new("ctr");
    import.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "image", "import"]);
    rootfs::run(import.args(["--snapshotter", "native"]).arg(image));
    Runtime { cri, run }
}

impl Runtime {
    pub fn socket(&self) -> &Path {
        &self.cri.socket
    }

    /// A pod's sandbox, without containers yet.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        let number = scratch::unique();
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", std::process::id());
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: format!("{name}-{number}"),
                uid: uid.clone(),
                namespace: NAMESPACE.to_owned(),
            }),
            log_directory: scratch::subdir("podlogs").display().to_string(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/kubepods/besteffort/pod{uid}", cgroup::home()),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(NAMESPACES),
                }),
            }),
        };
        let question = cri::RunPodSandboxRequest { config: Some(config.clone()) };
        let mut said = String::new();
        // The CRI learns of a new image a moment after its import.
        let made = wait::until(Duration::from_secs(20), || {
            self.cri
                .ask::<cri::Made>("/runtime.v1.RuntimeService/RunPodSandbox", &question)
                .map_err(|e| said = e)
                .ok()
        });
        let id = made.unwrap_or_else(|| panic!("no sandbox: {said}")).id;
        own::register(&id);
        let pid = self.pid(&id);
        Pod { runtime: self, id, uid, name: format!("{name}-{number}"), pid, config, containers: Vec::new() }
    }

    /// The first process of a container or sandbox.
    fn pid(&self, id: &str) -> u32 {
        let file = self.run.join("containerd/io.containerd.runtime.v2.task/k8s.io").join(id).join("init.pid");
        let pid = std::fs::read_to_string(&file).unwrap_or_default();
        pid.trim().parse().unwrap_or_else(|_| panic!("no pid in {}: {pid:?}", file.display()))
    }

    fn named(&self, method: &'static str, id: &str) -> Result<(), String> {
        self.cri.ask::<cri::Empty>(method, &cri::Named { id: id.to_owned() }).map(drop)
    }
}

/// A pod; removed with all its containers when dropped.
#[derive(Debug)]
pub struct Pod<'a> {
    runtime: &'a Runtime,
    /// The sandbox's.
    pub id: String,
    pub uid: String,
    pub name: String,
    /// The sandbox's first process.
    pub pid: u32,
    config: cri::PodSandboxConfig,
    containers: Vec<u32>,
}

/// A container of a pod; it ends with the pod.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub pid: u32,
    shell: Shell,
}

impl Pod<'_> {
    /// A container whose first process is the shell, with the host's pids and what `nsenter` needs.
    pub fn start(&mut self, name: &str) -> Container {
        let shell = Shell::new();
        let capabilities = ["SYS_ADMIN", "SYS_PTRACE"].map(str::to_owned).into();
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned() }),
            image: Some(cri::ImageSpec { image: IMAGE.to_owned(), user_specified_image: String::new() }),
            command: ARGS.map(str::to_owned).into(),
            mounts: vec![cri::Mount {
                container_path: MOUNTED_AT.to_owned(),
                host_path: shell.dir().display().to_string(),
            }],
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    capabilities: Some(cri::Capability { add_capabilities: capabilities }),
                    namespace_options: Some(NAMESPACES),
                }),
            }),
        };
        let question = cri::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let cri = &self.runtime.cri;
        let id = cri
            .ask::<cri::Made>("/runtime.v1.RuntimeService/CreateContainer", &question)
            .expect("make a container")
            .id;
        own::register(&id);
        self.runtime.named("/runtime.v1.RuntimeService/StartContainer", &id).expect("start the container");
        let pid = self.runtime.pid(&id);
        self.containers.push(pid);
        Container { id, pid, shell }
    }
}

impl Container {
    pub fn sh(&self, line: &str) -> Said {
        self.shell.run(line)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // With the host's pid namespace the shells' children would outlive them.
        for pid in self.containers.iter().flat_map(|pid| host::descendants(*pid)) {
            host::signal(pid, libc::SIGKILL);
        }
        for method in
            ["/runtime.v1.RuntimeService/StopPodSandbox", "/runtime.v1.RuntimeService/RemovePodSandbox"]
        {
            if let Err(error) = self.runtime.named(method, &self.id) {
                eprintln!("{error}");
            }
        }
    }
}
