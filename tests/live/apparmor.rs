//! Processes that leave their container's AppArmor profile. Where the kernel has AppArmor: in the virtual machines.

use crate::lab;
use observer_live::agent::{Config, observer};
use observer_live::lab::{missing, skipped};
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, pace, scratch, wait};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PROC: &str = "/proc/self/attr/apparmor/current";
const PARSER: &str = "apparmor_parser";

/// Profiles of this test process's own; removed when dropped.
struct Profiles {
    /// Of containers. It lets its processes go wherever they like.
    first: String,
    other: String,
}

impl Profiles {
    /// None, and that is said, where there is no AppArmor, or nothing to compile profiles with.
    fn load() -> Option<Self> {
        let active = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if active.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            let own = fs::read(PROC).expect_err("a label without the module").raw_os_error();
            assert!(own == Some(libc::ENOENT) || own == Some(libc::EINVAL), "{own:?}");
            skipped("this kernel has no AppArmor: /sys/module/apparmor is not there");
            return None;
        }
        if let Err(error) = fs::read(PROC) {
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            skipped("AppArmor is not active: reading one's own label gives EINVAL");
            return None;
        }
        if let Some(reason) = missing(PARSER) {
            skipped(&reason);
            return None;
        }
        let mark = scratch::mark();
        let profiles = Self { first: format!("{mark}-first"), other: format!("{mark}-other") };
        profiles.parser("--replace", &profiles.text());
        Some(profiles)
    }

    fn text(&self) -> String {
        let may =
            "file, capability, network, mount, umount, pivot_root, ptrace, signal, unix, change_profile,";
        format!(
            "profile {} flags=(attach_disconnected) {{ {may} profile child {{ {may} }} }}\n\
             profile {} flags=(attach_disconnected) {{ {may} }}\n",
            self.first, self.other
        )
    }

    fn parser(&self, action: &str, text: &str) {
        let file = scratch::dir().join("profiles");
        fs::write(&file, text).expect("write the profiles");
        let output = Command::new(PARSER)
            .args(["--skip-cache", "--base", "/", action])
            .arg(&file)
            .output()
            .expect("run apparmor_parser");
        assert!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        // A profile in use is removed as well; what it confined is not confined any more.
        for name in [format!("{}//child", self.first), self.first.clone(), self.other.clone()] {
            let _ = fs::write("/sys/kernel/security/apparmor/.remove", name);
        }
    }
}

fn label(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/attr/apparmor/current")).unwrap_or_default().trim().to_owned()
}

/// A process below the container's first, once it has this label.
fn with_label(container: &Container, expected: &str) -> u32 {
    let has = |pid: &u32| label(*pid) == expected;
    wait::until(pace::patience(Duration::from_secs(5)), || {
        host::descendants(container.pid).into_iter().find(has)
    })
    .unwrap_or_else(|| panic!("nobody is {expected}"))
}

fn enforced(profile: &str) -> String {
    format!("{profile} (enforce)")
}

/// The node of a process in `observer tree --json`.
fn node(tree: &Value, pid: u32) -> Option<&Value> {
    match tree {
        Value::Array(all) => all.iter().find_map(|it| node(it, pid)),
        Value::Object(fields)
            if fields.get("pid").is_some_and(|it| *it == pid) && fields.contains_key("comm") =>
        {
            Some(tree)
        }
        Value::Object(fields) => fields.values().find_map(|it| node(it, pid)),
        _ => None,
    }
}

/// By an exec, and without one; the profile below and the unconfined container are nothing. Two alerts.
#[test]
fn who_leaves_the_profile_is_told() {
    let Some(lab) = lab() else { return };
    let Some(profiles) = Profiles::load() else { return };
    let agent = lab.agent();
    let free = lab.container(Spec::new("apparmor-none"));
    let container = lab.container(Spec::new("apparmor").apparmor(&profiles.first));
    let (first, other) = (enforced(&profiles.first), enforced(&profiles.other));
    assert!(
        wait::until_true(pace::patience(Duration::from_secs(5)), || label(container.pid) == first),
        "{}",
        label(container.pid)
    );
    assert_eq!(label(free.pid), "unconfined");

    let change = |to: &str| format!("echo changeprofile {to} >{PROC}");
    container
        .sh(&format!("sh -c '{}; exec sleep 300' &", change(&format!("{}//child", profiles.first))))
        .ok();
    with_label(&container, &format!("{}//child (enforce)", profiles.first));
    free.sh(&format!("sh -c '{}; exec sleep 300' &", change(&profiles.other))).ok();
    with_label(&free, &other);
    agent.settle_through_sweep();
    agent.assert_nothing();

    container.sh(&format!("sh -c '{}; exec sleep 300' &", change("unconfined"))).ok();
    let unconfined = with_label(&container, "unconfined");
    let alert = agent.wait_for_matching("apparmor.changed", &container.id, |it| it.severity() == "critical");
    assert_eq!(alert.pid(), Some(unconfined), "{}", alert.line);
    assert_eq!(
        (alert.text("/evidence/from"), alert.text("/evidence/to")),
        (first.as_str(), "unconfined"),
        "{}",
        alert.line
    );
    assert_eq!(alert.text("/attribution"), "exact", "{}", alert.line);

    container.sh(&format!("mkfifo /tmp/wait; ({}; read line </tmp/wait) &", change(&profiles.other))).ok();
    let changed = with_label(&container, &other);
    let alert = agent.wait_for_matching("apparmor.changed", &container.id, |it| it.severity() == "warning");
    assert_eq!((alert.pid(), alert.text("/evidence/to")), (Some(changed), other.as_str()), "{}", alert.line);
    agent.settle_through_sweep();
    agent.assert_only(&[
        ("apparmor.changed", "critical", &container.id),
        ("apparmor.changed", "warning", &container.id),
    ]);
    shown(agent.config(), &container, unconfined, &profiles);
    agent.finish();
}

/// What the verbs say of these processes.
fn shown(config: &Config, container: &Container, unconfined: u32, profiles: &Profiles) {
    let ask = |args: &[&str]| {
        let output = observer(args).args(["--config", config.arg()]).output().expect("run observer");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let tree: Value = serde_json::from_str(&ask(&["tree", "--json", &container.id])).expect("JSON");
    let profile = |pid| node(&tree, pid).map(|it| it["security"]["apparmor"]["profile"].clone());
    assert_eq!(profile(unconfined), Some("unconfined".into()), "{tree}");
    assert_eq!(profile(container.pid), Some(profiles.first.clone().into()), "{tree}");
    assert!(ask(&["tree", &container.id]).contains("[unconfined]"));
    let page = ask(&["inspect", &container.id]);
    assert!(page.contains(&format!("but unconfined: pid {unconfined}")), "{page}");
    let audit = ask(&["audit", &container.id]);
    assert!(audit.contains("another AppArmor label"), "{audit}");
}

/// What has left before the agent comes is found by its first look at all: late.
#[test]
fn who_left_before_the_start_is_found() {
    let Some(lab) = lab() else { return };
    let Some(profiles) = Profiles::load() else { return };
    let container = lab.container(Spec::new("apparmor-late").apparmor(&profiles.first));
    container.sh(&format!("sh -c 'echo changeprofile unconfined >{PROC}; exec sleep 300' &")).ok();
    let unconfined = with_label(&container, "unconfined");
    let agent = lab.fresh_agent();
    let alert = agent.wait_for("apparmor.changed", &container.id);
    assert_eq!(
        (alert.pid(), alert.severity(), alert.text("/attribution")),
        (Some(unconfined), "critical", "late"),
        "{}",
        alert.line
    );
    agent.settle_through_sweep();
    agent.assert_only(&[("apparmor.changed", "critical", &container.id)]);
    agent.finish();
}

/// The kernel says who is confined, by files that no container can make up: nobody is asked where there are none.
#[test]
fn the_hosts_modules_are_told() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("apparmor-host"));
    let config = Config::new("");
    let output = observer(&["inspect", "--json", "--no-agent", &container.id, "--config", config.arg()])
        .output()
        .expect("run observer inspect");
    let page: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let own = &page["container"]["security"]["apparmor"];
    if Path::new(PROC).exists() && fs::read(PROC).is_ok() {
        assert_eq!(own["profile"], label(container.pid).as_str(), "{page}");
    } else {
        assert!(own.is_null(), "{page}");
    }
}
