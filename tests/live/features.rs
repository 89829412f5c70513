//! What a kernel lacks disables just what needs it. The kernels here lack little, so the lack is pretended
//! (`kernel.pretend_without`); whole kernels are tried by `cargo xtask vm`.

use crate::{FOUR, assert_escape, lab};
use observer_live::agent::{self, Agent, Config};
use observer_live::host;
use observer_live::lab::skipped;
use observer_live::metrics::Metrics;
use observer_live::spec::Spec;
use serde_json::Value;
use std::collections::BTreeMap;

/// What reads kernel memory where typed pointers do not.
const UNREAD: &str = "helper:bpf_probe_read_kernel";

/// `bpf_get_current_task_btf` is of 5.11.
fn has_typed_pointers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(11))
}

/// With neither way to read there is nothing to run, and that is said.
fn refused_without_reading() {
    let output = agent::observer(&["run", "--config", without(&[UNREAD]).arg()]).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("kernel memory cannot be read"), "{said}");
}

fn without(words: &[&str]) -> Config {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    Config::new(&format!("kernel:\n  pretend_without: [{}]\n", words.join(", ")))
}

/// Each feature's tier as `observer check` has it, "off" for none; and whether it says that the agent can run.
pub(crate) fn check(config: &Config) -> (BTreeMap<String, String>, bool) {
    let output = agent::observer(&["check", "--json", "--config", config.arg()]).output().expect("run check");
    let report: Value = serde_json::from_slice(&output.stdout).expect("check --json");
    let features = report["features"].as_array().expect("features").iter();
    let tier = |feature: &Value| feature["tier"].as_str().unwrap_or("off").to_owned();
    let tiers = features.map(|it| (it["name"].as_str().expect("a name").to_owned(), tier(it))).collect();
    let ok = report["ok"].as_bool().expect("ok");
    assert_eq!(output.status.code(), Some(if ok { 0 } else { 1 }), "{report}");
    (tiers, ok)
}

/// A refusal is told from the end of a call: where ends are not seen, nothing claims that refusals are.
#[test]
fn without_ends_of_calls_no_refusals_are_told() {
    let Some(_lab) = lab() else { return };
    for (without, may_be) in [("[]", true), ("[\"hook:tp_btf/sys_exit\"]", false)] {
        let config = format!("audit: {{seccomp: true}}\nkernel: {{pretend_without: {without}}}\n");
        let (tiers, ok) = check(&Config::new(&config));
        assert!(ok, "{tiers:?}");
        let [ends, refusals] = ["syscalls_used", "seccomp_denials"].map(|feature| tiers[feature] != "off");
        assert_eq!(ends, refusals, "{without}: {tiers:?}");
        // (Before 5.15 neither is to be had.)
        assert!(may_be || !ends, "{without}: {tiers:?}");
    }
}

/// A missing field, tracepoint, helper or type of program: what it changes, and nothing else. `check` names the reason.
#[test]
fn what_is_missing_disables_only_what_needs_it() {
    let Some(_lab) = lab() else { return };
    let (all, ok) = check(&without(&[]));
    assert!(ok, "{all:?}");
    let fentry = all["namespace_calls"] == "fentry";
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("field:nsproxy.time_ns", &[("time_namespaces", "off")]),
        ("field:nsproxy.cgroup_ns", &[("cgroup_namespaces", "off")]),
        ("field:pid.level", &[("pid_namespaces", "off")]),
        ("field:css_set.subsys", &[("cgroup_v1", "off"), ("oom_limits", "off"), ("fork_refusals", "off")]),
        ("field:page_counter.max", &[("oom_limits", "off")]),
        ("field:task_struct.mm", &[("arguments", "off"), ("oom_memory", "off")]),
        ("field:pids_cgroup.limit", &[("fork_refusals", "off")]),
        ("hook:tp_btf/mark_victim", &[("oom_kills", "off")]),
        ("field:mount.mnt_ns", &[("root_mounts", "off"), ("root_paths", "caller")]),
        ("field:mount.mnt_mountpoint", &[("root_paths", "caller")]),
        ("field:mm_struct.arg_start", &[("arguments", "off")]),
        ("field:path.mnt", &[("host_root", "off"), ("root_calls", "off"), ("root_paths", "off")]),
        ("hook:tp_btf/cgroup_transfer_tasks", &[("cgroup_transfers", "off")]),
        ("type:iter", &[("sweep", "procfs")]),
        (
            "type:fexit",
            &[
                ("namespace_calls", "tracepoint"),
                ("namespace_refusals", "tracepoint"),
                ("root_calls", "tracepoint"),
                ("fork_refusals", "tracepoint"),
                ("compat_calls", "off"),
            ],
        ),
        ("helper:bpf_get_current_task_btf", &[]),
        ("helper:bpf_task_pt_regs", &[]),
        // Of refused clones only the tracepoints need what a call's arguments point to.
        (
            "helper:bpf_probe_read_user",
            if fentry {
                &[("arguments", "off")]
            } else {
                &[("namespace_refusals", "off"), ("arguments", "off")]
            },
        ),
        (
            UNREAD,
            &[
                ("pid_namespaces", "off"),
                ("root_mounts", "off"),
                ("root_paths", "caller"),
                ("kernel_texts", "off"),
                ("oom_limits", "off"),
                ("oom_memory", "off"),
                ("fork_refusals", "off"),
            ],
        ),
    ];
    for (word, changes) in cases {
        if *word == UNREAD && !has_typed_pointers() {
            refused_without_reading();
            continue;
        }
        let mut expected = all.clone();
        for (feature, tier) in *changes {
            expected.insert((*feature).to_owned(), (*tier).to_owned());
        }
        assert_eq!(check(&without(&[word])), (expected, true), "without {word}");
    }
    // The tracepoints serve those calls only where functions do not; without both there is nothing to run.
    let hook = if fentry { "hook:fexit/__x64_sys_setns" } else { "hook:tracepoint/syscalls/sys_exit_setns" };
    let (tiers, ok) = check(&without(&[hook]));
    assert_eq!(
        (tiers["namespace_calls"].as_str(), ok),
        if fentry { ("tracepoint", true) } else { ("off", false) }
    );
    let (tiers, ok) = check(&without(&["hook:tp_btf/sched_process_exec"]));
    assert_eq!((tiers["processes"].as_str(), ok), ("off", false));
    let output = agent::observer(&["run", "--config", without(&["hook:tp_btf/sched_process_exec"]).arg()])
        .output()
        .expect("run without a required hook");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("sched_process_exec") && said.contains("pretend_without"), "{said}");
    // A field without which nothing can be seen is named, too.
    let output = agent::observer(&["run", "--config", without(&["field:task_struct.nsproxy"]).arg()])
        .output()
        .expect("run without a required field");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("task_struct.nsproxy"), "{said}");
}

/// Whether a running agent has a feature by this tier.
pub(crate) fn serves(agent: &Agent, feature: &str, tier: &str) -> bool {
    enabled(&agent.metrics(), feature, tier) == 1.0
}

/// 1 for the tier that serves a feature, 0 for its others.
fn enabled(metrics: &Metrics, feature: &str, tier: &str) -> f64 {
    metrics.sum("observer_feature_enabled", &[("feature", feature), ("tier", tier)])
}

/// The agent without something: an escape is the same alert, and the metrics say what is off.
fn escape_without(name: &str, words: &[&str], off: &[&str]) {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = Agent::with(without(words));
    let metrics = agent.metrics();
    for (feature, tier) in check(agent.config()).0 {
        // Refused clones need neither memory nor registers where functions show them.
        let elsewhere = feature == "namespace_refusals" && tier == "fentry";
        let is_off = off.contains(&feature.as_str()) && !elsewhere;
        assert!(!is_off || tier == "off", "{feature} is served by {tier}");
        if tier != "off" {
            assert_eq!(enabled(&metrics, &feature, &tier), 1.0, "{feature} by {tier}");
        }
        let served = metrics.sum("observer_feature_enabled", &[("feature", &feature)]);
        assert_eq!(served, if tier == "off" { 0.0 } else { 1.0 }, "{feature}");
    }
    let container = lab.container(Spec::privileged(name));
    container.sh(&format!("nsenter -t {} -m -n -u -i sh -c true", target.pid())).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// As on 5.10: no typed pointer to the current task, no helper for its registers.
#[test]
fn an_escape_without_typed_pointers() {
    escape_without("untyped", &["helper:bpf_get_current_task_btf", "helper:bpf_task_pt_regs"], &[]);
}

/// As under lockdown=confidentiality.
#[test]
fn an_escape_without_reading_kernel_memory() {
    if !has_typed_pointers() {
        refused_without_reading();
        skipped(
            "this kernel has no bpf_get_current_task_btf, and the agent said that it cannot read without",
        );
        return;
    }
    escape_without(
        "unread",
        &[UNREAD, "helper:bpf_probe_read_user"],
        &[
            "pid_namespaces",
            "root_mounts",
            "root_paths",
            "kernel_texts",
            "arguments",
            "namespace_refusals",
            "oom_limits",
            "oom_memory",
            "fork_refusals",
        ],
    );
}

/// Neither functions nor the iterator.
#[test]
fn an_escape_by_tracepoints_alone() {
    escape_without("tracepoints", &["type:fexit", "type:iter"], &["compat_calls"]);
}

/// Neither the arguments of calls nor those of programs.
#[test]
fn an_escape_without_arguments() {
    escape_without(
        "no-args",
        &["field:pt_regs.di", "field:mm_struct.arg_start", "field:nsproxy.time_ns", "field:css_set.subsys"],
        &[
            "namespace_refusals",
            "compat_calls",
            "arguments",
            "time_namespaces",
            "cgroup_v1",
            "oom_limits",
            "fork_refusals",
        ],
    );
}
