//! Processes that leave their container's AppArmor profile, and what it denies them. Where the kernel has AppArmor: in the virtual
//! machines.

use crate::{features, lab};
use observer_live::agent::{Agent, Config, observer};
use observer_live::alert::Alert;
use observer_live::audit_log::AuditLog;
use observer_live::lab::{Lab, missing, skipped};
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, pace, scratch, wait};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PROC: &str = "/proc/self/attr/apparmor/current";
const PARSER: &str = "apparmor_parser";

/// Profiles of this test process's own; removed when dropped.
struct Profiles {
    /// Of containers. It lets its processes go wherever they like.
    first: String,
    other: String,
    /// Denies a file of containers, one of the host, and a capability.
    denies: String,
    /// In complain mode: lets pass a capability that it does not have.
    complains: String,
}

/// What the third one denies containers, in which nothing else reads it.
const DENIED_FILE: &str = "/etc/os-release";

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
        let name = |what: &str| format!("{mark}-{what}");
        let (first, other) = (name("first"), name("other"));
        let profiles = Self { first, other, denies: name("denies"), complains: name("complains") };
        profiles.parser("--replace", &profiles.text());
        Some(profiles)
    }

    fn text(&self) -> String {
        let most = "file, network, mount, umount, pivot_root, ptrace, signal, unix, change_profile,";
        let may = format!("{most} capability,");
        // What is denied by such a rule is written down only where the rule says so.
        let denied = format!(
            "audit deny {DENIED_FILE} r, audit deny {} r, audit deny capability sys_chroot,",
            self.host_file().display()
        );
        let capabilities =
            "chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap kill sys_admin";
        format!(
            "profile {} flags=(attach_disconnected) {{ {may} profile child {{ {may} }} }}\n\
             profile {} flags=(attach_disconnected) {{ {may} }}\n\
             profile {} flags=(attach_disconnected) {{ {may} {denied} }}\n\
             profile {} flags=(attach_disconnected, complain) {{ {most} capability {capabilities}, }}\n",
            self.first, self.other, self.denies, self.complains
        )
    }

    /// What the third one denies the host.
    fn host_file(&self) -> PathBuf {
        scratch::dir().join("denied")
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
        let all = [&self.first, &self.other, &self.denies, &self.complains];
        for name in [format!("{}//child", self.first)].into_iter().chain(all.map(String::clone)) {
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

const FEATURE: &str = "apparmor_denials";
const AUDITED: &str = "audit:\n  apparmor: true\n";
const DENIED: &str = "observer_container_apparmor_denied_total";
const COMPLAINED: &str = "observer_container_apparmor_allowed_total";

/// What is being told of, and an agent that reads it.
fn audited(lab: &Lab) -> (AuditLog, Agent) {
    let log = AuditLog::join().expect("the audit log, for which root has CAP_AUDIT_READ");
    let agent = lab.only_agent(Config::new(AUDITED));
    assert!(features::serves(&agent, FEATURE, "audit_log"), "{}", agent.log_tail());
    (log, agent)
}

fn denied(agent: &Agent, container: &Container) -> f64 {
    agent.metrics().sum(DENIED, &[("container", &container.id)])
}

/// The last line of each thing that was denied a container: the name or the capability, and how often.
fn last_counts(alerts: &[Alert], container: &str) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    let of_it = |alert: &&Alert| alert.rule() == "apparmor.denied" && alert.container() == Some(container);
    for alert in alerts.iter().filter(of_it) {
        let what = [alert.text("/evidence/name"), alert.text("/evidence/capability")].concat();
        let count = alert.number("/count").expect("a count");
        match counts.iter_mut().find(|(known, _)| *known == what) {
            Some((_, last)) => *last = count,
            None => counts.push((what, count)),
        }
    }
    counts.sort();
    counts
}

/// A file and a capability: one alert for each, with the count of all, whoever in the container it was and however short their
/// lives. A profile that complains denies nothing; what the host is denied is not a container's.
#[test]
fn what_a_profile_denies_is_told_once_with_its_count() {
    let Some(lab) = lab() else { return };
    let Some(profiles) = Profiles::load() else { return };
    let (mut log, agent) = audited(&lab);
    let container = lab.container(Spec::new("denies").apparmor(&profiles.denies));
    let complaining = lab.container(Spec::new("complains").apparmor(&profiles.complains));
    for it in [&container, &complaining] {
        it.sh("ls -l / /proc /proc/self >/dev/null; id; sleep 0.1; touch /tmp/f && chown 1000 /tmp/f").ok();
    }
    agent.settle();
    agent.assert_nothing();

    // By one process that lives on, and by some that are gone at once.
    container
        .sh(&format!("for i in 1 2 3 4 5 6 7; do read line <{DENIED_FILE}; done 2>/dev/null; true"))
        .ok();
    for _ in 0..5 {
        assert_ne!(container.sh(&format!("cat {DENIED_FILE}")).code, 0);
    }
    for _ in 0..3 {
        assert_ne!(container.sh("chroot / true").code, 0);
    }
    complaining.sh("chroot / true").ok();
    let file = profiles.host_file();
    fs::write(&file, "").expect("write a file of the host");
    let script = format!("echo changeprofile {} >{PROC}; read line <{}", profiles.denies, file.display());
    let host = Command::new("sh").args(["-c", &script]).output().expect("run a shell of the host");
    assert_ne!(host.status.code(), Some(0));

    let of_file = |alert: &Alert| alert.text("/evidence/name") == DENIED_FILE;
    let alert = agent.wait_for_matching("apparmor.denied", &container.id, of_file);
    let evidence = |field: &str| alert.text(&format!("/evidence/{field}")).to_owned();
    assert_eq!(["operation", "requested", "denied", "mode"].map(evidence), ["open", "r", "r", "enforce"]);
    assert_eq!(
        (evidence("profile"), alert.severity()),
        (profiles.denies.clone(), "notice"),
        "{}",
        alert.line
    );
    assert_eq!((alert.text("/process/comm"), alert.text("/attribution")), ("sh", "exact"), "{}", alert.line);
    let of_capability = |alert: &Alert| alert.text("/evidence/capability") == "CAP_SYS_CHROOT";
    agent.wait_for_matching("apparmor.denied", &container.id, of_capability);
    // The kernel's own count of what it has written down: of a capability, that is not every denial.
    let in_log = |log: &mut AuditLog, words: &[&str]| log.lines(words).len() as u64;
    let by_container = format!("\"{}\"", profiles.denies);
    let files = in_log(&mut log, &[&by_container, "DENIED", DENIED_FILE]);
    let capabilities = in_log(&mut log, &[&by_container, "DENIED", "sys_chroot"]);
    assert_eq!(files, 12, "{:?}", log.lines(&[]));
    assert!((1..=3).contains(&capabilities), "{:?}", log.lines(&[]));
    assert_eq!(
        in_log(&mut log, &[&by_container, "DENIED", &file.display().to_string()]),
        1,
        "{:?}",
        log.lines(&[])
    );
    let complaints = in_log(&mut log, &[&profiles.complains, "ALLOWED"]);
    assert!(complaints >= 1, "{:?}", log.lines(&[]));

    let all = (files + capabilities) as f64;
    let counted = || denied(&agent, &container) == all;
    assert!(
        wait::until_true(pace::patience(Duration::from_secs(5)), counted),
        "{}",
        denied(&agent, &container)
    );
    let of = |family: &str, of: &Container| agent.metrics().sum(family, &[("container", &of.id)]);
    assert_eq!((of(COMPLAINED, &complaining), of(DENIED, &complaining)), (complaints as f64, 0.0));
    assert_audited(&agent, &container, files);
    let expected = ("apparmor.denied", "notice", container.id.as_str());
    // The chroot itself, which failed, is told by its own rule.
    agent.assert_only(&[expected, expected, ("root.escape", "notice", &container.id)]);
    let (id, lost) = (container.id.clone(), agent.metrics().family("observer_events_lost_total"));
    assert!(lost.iter().all(|(labels, count)| *count == 0.0 || labels.contains("skipped")), "{lost:?}");
    let alerts = agent.stop();
    let counts = [(DENIED_FILE.to_owned(), files), ("CAP_SYS_CHROOT".to_owned(), capabilities)];
    assert_eq!(last_counts(&alerts, &id), counts, "{:?}", log.lines(&[]));
    let others =
        alerts.iter().filter(|alert| alert.rule() == "apparmor.denied" && alert.container() != Some(&id));
    assert_eq!(others.count(), 0);
}

/// `audit CONTAINER` says what was denied, how often, and when.
fn assert_audited(agent: &Agent, container: &Container, files: u64) {
    let output = observer(&["audit", "--config", agent.config().arg(), "--json", &container.id])
        .output()
        .expect("run observer audit");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let denied = &document["containers"][0]["observed"]["apparmor"]["denied"];
    let of_file = denied.as_array().expect("denials").iter().find(|it| it["what"] == DENIED_FILE);
    let of_file = of_file.unwrap_or_else(|| panic!("{document}"));
    assert_eq!((&of_file["result"], &of_file["operation"]), (&"denied".into(), &"open".into()), "{of_file}");
    assert_eq!(of_file["count"].as_u64(), Some(files), "{of_file}");
    assert!(of_file["first"].as_str() < of_file["last"].as_str(), "{of_file}");
    let text = observer(&["audit", "--config", agent.config().arg(), &container.id]).output().expect("run");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let is_row = |line: &str| line.contains("denied") && line.contains("open") && line.contains(DENIED_FILE);
    assert!(text.lines().any(is_row), "{text}");
}

/// An agent that does not come to read misses what finds no room, and says how much: with what it counted, all that there was.
#[test]
fn denials_that_find_no_room_are_counted() {
    const TIMES: u32 = 3000;
    let Some(lab) = lab() else { return };
    let Some(profiles) = Profiles::load() else { return };
    let (mut log, agent) = audited(&lab);
    let container = lab.container(Spec::new("floods").apparmor(&profiles.denies));
    agent.settle();
    host::signal(agent.pid(), libc::SIGSTOP);
    let line = format!(
        "i=0; while [ $i -lt {TIMES} ]; do read line <{DENIED_FILE}; i=$((i+1)); done 2>/dev/null; true"
    );
    let said = container.sh(&line);
    host::signal(agent.pid(), libc::SIGCONT);
    said.ok();
    // (The kernel's own queue may have been too short for some.)
    let written = log.lines(&["DENIED", DENIED_FILE]).len() as f64;
    println!("{written} of {TIMES} are in the log");
    let lost = || agent.metrics().sum("observer_events_lost_total", &[("reason", "audit_log")]);
    let all_accounted = || denied(&agent, &container) + lost() == written;
    assert!(
        wait::until_true(pace::patience(Duration::from_secs(10)), all_accounted),
        "{} counted, {} lost, {written} in the log",
        denied(&agent, &container),
        lost()
    );
    assert!(lost() > 0.0 && denied(&agent, &container) > 100.0, "{}", lost());
    let told = |alert: &Alert| alert.number("/evidence/lost/audit_log").is_some();
    assert!(
        agent
            .try_wait_for(Duration::from_secs(5), |alert| alert.rule() == "agent.events_lost" && told(alert))
            .is_some()
    );
    agent.stop();
}

/// What `check` says of the feature: the tier, whether it is off because nobody asked, and why it cannot be had.
fn row(config: &Config, wrapper: &[&str]) -> (Option<String>, bool, String) {
    let program = observer_live::agent::binary();
    let mut command = match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    let output =
        command.args(["check", "--json", "--config", config.arg()]).output().expect("run observer check");
    let report: Value = serde_json::from_slice(&output.stdout).expect("check --json");
    assert_eq!(report["ok"], true, "{report}");
    let features = report["features"].as_array().expect("features");
    let row = features.iter().find(|it| it["name"] == FEATURE).expect("the feature");
    let tier = row["tier"].as_str().map(str::to_owned);
    let why = row["refused"][0]["error"].as_str().unwrap_or_default().to_owned();
    (tier, row["not_configured"] == "audit.apparmor", why)
}

/// Off unless asked for; where it cannot be had, `check` says why, and the agent does without.
#[test]
fn denials_are_read_where_that_is_asked_for_and_allowed() {
    let Some(lab) = lab() else { return };
    assert_eq!(row(&Config::new(""), &[]), (None, true, String::new()));
    let config = Config::new(AUDITED);
    if fs::read(PROC).is_err() {
        let (tier, not_configured, why) = row(&config, &[]);
        assert!(tier.is_none() && !not_configured && why.starts_with("AppArmor is not active here"), "{why}");
        let agent = lab.only_agent(config);
        assert_eq!(agent.metrics().sum("observer_feature_enabled", &[("feature", FEATURE)]), 0.0);
        agent.finish();
        return;
    }
    assert_eq!(row(&config, &[]), (Some("audit_log".into()), false, String::new()));
    let without = ["setpriv", "--bounding-set=-audit_read"];
    let (tier, _, why) = row(&config, &without);
    assert!(tier.is_none() && why.contains("os error 1") && why.contains("CAP_AUDIT_READ"), "{why}");
    let (tier, _, why) = row(&config, &["unshare", "--net"]);
    assert!(tier.is_none() && why.contains("network namespace"), "{why}");
}
