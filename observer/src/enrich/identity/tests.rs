//! A vector for each layout that is known, and for what only looks like one. Paths as they are in /proc/PID/cgroup:
//! the same in each v1 hierarchy and in v2, so hybrid hosts need no vectors of their own.

use super::*;

const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
/// buildkit's.
const K: &str = "0z3kzlqq2rmvcq53kjd0ib3vp";

/// (what it is, path with `{A}`, `{B}` and `{K}` for ids, id, runtime).
const CONTAINERS: &[(&str, &str, &str, Runtime)] = &[
    // moby: daemon/oci_linux.go, WithCgroups.
    ("docker, cgroupfs", "/docker/{A}", A, Runtime::Docker),
    ("docker, systemd", "/system.slice/docker-{A}.scope", A, Runtime::Docker),
    ("docker, systemd, --cgroup-parent", "/my.slice/my-own.slice/docker-{A}.scope", A, Runtime::Docker),
    ("docker, cgroupfs, --cgroup-parent", "/mine/{A}", A, Runtime::Unknown),
    (
        "docker, rootless",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
        A,
        Runtime::Docker,
    ),
    ("docker, the driver's notation", "/system.slice:docker:{A}", A, Runtime::Docker),
    ("docker, systemd inside", "/docker/{A}/init.scope", A, Runtime::Docker),
    // containerd: internal/cri/server/helpers.go, getCgroupsPath; cmd/ctr; nerdctl: pkg/cmd/container/run_cgroup_linux.go.
    ("ctr with an id of docker's form", "/default/{A}", A, Runtime::Unknown),
    ("CRI without a pod's cgroup", "/k8s.io/{A}", A, Runtime::Unknown),
    ("nerdctl, systemd", "/system.slice/nerdctl-{A}.scope", A, Runtime::Containerd),
    (
        "nerdctl, rootless",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{A}.scope",
        A,
        Runtime::Containerd,
    ),
    ("nerdctl, cgroupfs", "/default/{A}", A, Runtime::Unknown),
    // Kubernetes: pkg/kubelet/cm/cgroup_manager_linux.go.
    (
        "containerd, burstable, systemd",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod83b090de_9676_407c_99aa_d33dc6aa0c0d.slice/cri-containerd-{A}.scope",
        A,
        Runtime::Containerd,
    ),
    (
        "containerd, guaranteed, systemd",
        "/kubepods.slice/kubepods-pod83b090de_9676_407c_99aa_d33dc6aa0c0d.slice/cri-containerd-{A}.scope",
        A,
        Runtime::Containerd,
    ),
    (
        "containerd, besteffort, cgroupfs (k3s)",
        "/kubepods/besteffort/pod83b090de-9676-407c-99aa-d33dc6aa0c0d/{A}",
        A,
        Runtime::Containerd,
    ),
    (
        "containerd, burstable, cgroupfs",
        "/kubepods/burstable/pod83b090de-9676-407c-99aa-d33dc6aa0c0d/{A}",
        A,
        Runtime::Containerd,
    ),
    (
        "containerd, guaranteed, cgroupfs",
        "/kubepods/pod83b090de-9676-407c-99aa-d33dc6aa0c0d/{A}",
        A,
        Runtime::Containerd,
    ),
    ("a static pod", "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/{A}", A, Runtime::Containerd),
    (
        "kubelet --cgroup-root",
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podX.slice/cri-containerd-{A}.scope",
        A,
        Runtime::Containerd,
    ),
    (
        "the kubelet's driver differs from the runtime's",
        "/system.slice/containerd.service/kubepods-burstable-podX.slice:cri-containerd:{A}",
        A,
        Runtime::Containerd,
    ),
    (
        "cri-dockerd, systemd (minikube)",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podX.slice/docker-{A}.scope",
        A,
        Runtime::Docker,
    ),
    (
        "CRI-O, systemd",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podX.slice/crio-{A}.scope",
        A,
        Runtime::CriO,
    ),
    (
        "CRI-O with crun",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podX.slice/crio-{A}.scope/container",
        A,
        Runtime::CriO,
    ),
    (
        "CRI-O, cgroupfs",
        "/kubepods/burstable/pod83b090de-9676-407c-99aa-d33dc6aa0c0d/crio-{A}",
        A,
        Runtime::CriO,
    ),
    ("CRI-O without Kubernetes", "/system.slice/crio-{A}.scope", A, Runtime::CriO),
    // podman: libpod/container_internal_linux.go, getOCICgroupPath.
    ("podman, systemd", "/machine.slice/libpod-{A}.scope", A, Runtime::Podman),
    ("podman with crun", "/machine.slice/libpod-{A}.scope/container", A, Runtime::Podman),
    ("podman, a pod", "/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", A, Runtime::Podman),
    ("podman, cgroupfs", "/libpod_parent/libpod-{A}", A, Runtime::Podman),
    ("podman, cgroupfs, a pod", "/libpod_parent/{B}/libpod-{A}", A, Runtime::Podman),
    (
        "podman, rootless",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
        A,
        Runtime::Podman,
    ),
    (
        "podman, rootless, a pod",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope",
        A,
        Runtime::Podman,
    ),
    ("podman --cgroups=split (quadlet)", "/system.slice/web.service/libpod-payload-{A}", A, Runtime::Podman),
    (
        "quadlet of a user",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-{A}",
        A,
        Runtime::Podman,
    ),
    // runc and crun with --systemd-cgroup.
    ("runc, systemd", "/system.slice/runc-web.scope", "web", Runtime::Runc),
    ("runc, systemd, a name with '-'", "/system.slice/runc-my-web.scope", "my-web", Runtime::Runc),
    (
        "crun, systemd",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/crun-web.scope",
        "web",
        Runtime::Crun,
    ),
    ("runc, the driver's notation", "/system.slice:runc:web", "web", Runtime::Runc),
    ("some runtime's own prefix", "/system.slice/mine-{A}.scope", A, Runtime::Unknown),
    // systemd: src/machine/machine-dbus.c; src/nspawn/nspawn.c.
    ("nspawn by hand", "/machine.slice/machine-box.scope", "box", Runtime::SystemdNspawn),
    ("nspawn, escaped", "/machine.slice/machine-my\\x2dbox.scope/payload", "my-box", Runtime::SystemdNspawn),
    (
        "nspawn as a service",
        "/machine.slice/systemd-nspawn@box.service/payload",
        "box",
        Runtime::SystemdNspawn,
    ),
    (
        "nspawn, v1",
        "/machine.slice/machine-box.scope/system.slice/cron.service",
        "box",
        Runtime::SystemdNspawn,
    ),
    ("libvirt's LXC driver", "/machine.slice/machine-lxc\\x2d1234\\x2dweb.scope", "web", Runtime::Lxc),
    // lxc: src/lxc/cgroups/cgfsng.c.
    ("LXC", "/lxc.payload.web", "web", Runtime::Lxc),
    ("LXC, systemd inside", "/lxc.payload.web/system.slice/cron.service", "web", Runtime::Lxc),
    ("LXC 3.1", "/lxc.payload/web", "web", Runtime::Lxc),
    ("LXC before 3.1, Proxmox", "/lxc/101/ns/system.slice", "101", Runtime::Lxc),
    (
        "LXC, unprivileged",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope/lxc.payload.web",
        "web",
        Runtime::Lxc,
    ),
    ("LXC, unprivileged, v1", "/user/1000.user/1.session/lxc/web", "web", Runtime::Lxc),
    ("LXD, Incus: a project's", "/lxc.payload.shop_web", "shop_web", Runtime::Lxc),
    // buildkit: executor/oci/spec_unix.go, generateCgroupOpts; moby: builder/builder-next.
    ("docker build, cgroupfs", "/docker/buildkit/{K}", K, Runtime::Buildkit),
    ("docker build, systemd", "/system.slice/buildkit-{K}.scope", K, Runtime::Buildkit),
    ("buildkitd", "/buildkit/{K}", K, Runtime::Buildkit),
    // amazon-ecs-agent: agent/taskresource/cgroup.
    ("ECS, cgroupfs", "/ecs/55091c13-b8cf-4801-b527-f4601742204d/{A}", A, Runtime::Docker),
    (
        "ECS, systemd",
        "/ecstasks.slice/ecstasks-55091c13b8cf4801b527f4601742204d.slice/docker-{A}.scope",
        A,
        Runtime::Docker,
    ),
    (
        "Fargate",
        "/ecs/34dc0b5e626f2c5c4c5170e34b10e765/34dc0b5e626f2c5c4c5170e34b10e765-1234567890",
        "34dc0b5e626f2c5c4c5170e34b10e765-1234567890",
        Runtime::Containerd,
    ),
    ("Nomad's docker driver", "/nomad.slice/share.slice/docker-{A}.scope", A, Runtime::Docker),
    // What a container calls the cgroups in it changes nothing: the outermost decides.
    ("docker in docker", "/docker/{A}/docker/{B}", A, Runtime::Docker),
    ("kind", "/docker/{A}/kubelet.slice/kubelet-kubepods.slice/cri-containerd-{B}.scope", A, Runtime::Docker),
    (
        "kind, systemd",
        "/system.slice/docker-{A}.scope/kubelet.slice/cri-containerd-{B}.scope",
        A,
        Runtime::Docker,
    ),
    ("buildkit in a container", "/docker/{A}/buildkit/{K}", A, Runtime::Docker),
    ("LXC in LXC", "/lxc.payload.out/lxc.payload.in", "out", Runtime::Lxc),
    ("podman in LXC", "/lxc.payload.out/machine.slice/libpod-{B}.scope", "out", Runtime::Lxc),
    ("a container that plays the host", "/docker/{A}/system.slice/sshd.service", A, Runtime::Docker),
    ("a container that plays a monitor", "/docker/{A}/libpod-conmon-{B}.scope", A, Runtime::Docker),
    (
        "a container that plays a virtual machine",
        "/docker/{A}/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
        A,
        Runtime::Docker,
    ),
];

const HOST: &[&str] = &[
    "/",
    "",
    "/init.scope",
    "/system.slice",
    "/system.slice/cron.service",
    "/system.slice/docker.service",
    "/system.slice/containerd.service",
    "/system.slice/crio.service",
    "/system.slice/snap.lxd.daemon.service",
    "/system.slice/dev-hugepages.mount",
    "/system.slice/system-getty.slice/getty@tty1.service",
    "/system.slice/run-u12.scope",
    "/user.slice/user-1000.slice",
    "/user.slice/user-1000.slice/session-3.scope",
    "/user.slice/user-1000.slice/user@1000.service",
    "/user.slice/user-1000.slice/user@1000.service/init.scope",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-flatpak-org.mozilla.firefox-1234.scope",
    "/user.slice/user-1000.slice/user@1000.service/dbus.service",
    // What holds containers is none.
    "/docker",
    "/docker/buildkit",
    "/buildkit",
    "/lxc",
    "/ecs/55091c13-b8cf-4801-b527-f4601742204d",
    "/machine.slice",
    "/nomad.slice/share.slice",
    "/libpod_parent",
    "/libpod_parent/{A}",
    "/machine.slice/machine-libpod_pod_{A}.slice",
    "/kubepods",
    "/kubepods/burstable",
    "/kubepods/besteffort/pod83b090de-9676-407c-99aa-d33dc6aa0c0d",
    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod83b090de_9676_407c_99aa_d33dc6aa0c0d.slice",
    "/kubelet.slice/kubelet-kubepods.slice",
    // Runtimes' helpers.
    "/machine.slice/libpod-conmon-{A}.scope",
    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-{A}.scope",
    "/libpod_parent/conmon",
    "/libpod_parent/{A}/conmon",
    "/system.slice/crio-conmon-{A}.scope",
    "/kubepods/burstable/pod83b090de-9676-407c-99aa-d33dc6aa0c0d/crio-conmon-{A}",
    "/lxc.monitor.web",
    "/lxc.monitor/101",
    "/lxc.pivot",
    "/user.slice/user-1000.slice/session-1.scope/lxc.monitor.web",
    // Virtual machines.
    "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
    "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/vcpu0",
];

/// What runs there decides: the path, its last part.
const UNKNOWN: &[(&str, &str)] = &[
    ("/web", "web"),
    // ctr; runc within a job's cgroup.
    ("/default/web", "web"),
    ("/a/b/c", "c"),
    ("/system.slice/web.service/web", "web"),
    // quadlet: podman's helpers beside the payload.
    ("/system.slice/web.service/runtime", "runtime"),
    // Short ids, upper case, too long: no runtime's.
    ("/docker/0123456789ab", "0123456789ab"),
    (
        "/0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
    ),
    ("/x/{A}0", "{A}0"),
    // Names as the host's, where the host has none of these.
    ("/default/docker", "docker"),
    ("/default/web.service", "web.service"),
    ("/web.service", "web.service"),
    ("/web.scope", "web.scope"),
    ("/default/pod83b090de-9676-407c-99aa-d33dc6aa0c0d", "pod83b090de-9676-407c-99aa-d33dc6aa0c0d"),
    ("/default/kubepods", "kubepods"),
    // Nomad's exec and raw_exec drivers, v1 and v2.
    ("/nomad/55091c13-b8cf-4801-b527-f4601742204d.web", "55091c13-b8cf-4801-b527-f4601742204d.web"),
    (
        "/nomad.slice/share.slice/55091c13-b8cf-4801-b527-f4601742204d.web.scope",
        "55091c13-b8cf-4801-b527-f4601742204d.web.scope",
    ),
    ("/mesos/55091c13-b8cf-4801-b527-f4601742204d", "55091c13-b8cf-4801-b527-f4601742204d"),
    // OpenRC.
    ("/openrc.sshd", "openrc.sshd"),
    // Prefixes with nothing behind them.
    ("/lxc.payload.", "lxc.payload."),
    ("/machine-.scope", "machine-.scope"),
    ("/system.slice:docker:web", "system.slice:docker:web"),
    ("/:::", ":::"),
];

fn fill(text: &str) -> String {
    text.replace("{A}", A).replace("{B}", B).replace("{K}", K)
}

#[test]
fn paths_tell_containers_from_the_host() {
    for (what, path, id, runtime) in CONTAINERS {
        let expected = Identity::Container { id: (*id).to_owned(), runtime: *runtime };
        assert_eq!(identify(&fill(path)), expected, "{what}: {path}");
        // A cgroup below it is its own, whatever its name.
        for below in
            [format!("docker/{B}"), "x".to_owned(), "system.slice".to_owned(), format!("docker-{B}.scope")]
        {
            assert_eq!(identify(&format!("{}/{below}", fill(path))), expected, "{what}: {path}/{below}");
        }
    }
    for path in HOST {
        assert_eq!(identify(&fill(path)), Identity::Host, "{path}");
    }
    for (path, leaf) in UNKNOWN {
        assert_eq!(identify(&fill(path)), Identity::Unknown { leaf: fill(leaf) }, "{path}");
    }
}

#[test]
fn hostile_paths_are_paths() {
    let odd = [
        "//",
        "/\\x",
        "/machine-\\x.scope",
        "/machine-\\xff.scope",
        "/machine-\\x2",
        "/\u{fffd}/ü-",
        "/-.scope",
        "/:",
    ];
    for path in odd {
        // Whatever it is, nothing is made up: an id is part of the path.
        if let Identity::Container { id, .. } = identify(path) {
            assert!(!id.is_empty(), "{path}");
        }
    }
    assert_eq!(unescape("a\\x2db\\x5cx\\x2"), "a-b\\x\\x2");
    assert!(matches!(identify(&"/a".repeat(10_000)), Identity::Unknown { .. }));
}
