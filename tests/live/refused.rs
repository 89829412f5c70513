//! Clones into new namespaces that the kernel refused: told once, as notices, with what was asked for.

use crate::{features, lab};
use observer_live::agent::Agent;
use observer_live::events::Events;
use observer_live::lab::skipped;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{pace, wait};
use std::time::Duration;

/// Whether the kernel's own copy of the flags is seen, and so 32-bit calls as well.
fn sees_behind_the_call(agent: &Agent) -> bool {
    features::serves(agent, "namespace_refusals", "fentry")
}

/// One notice about this attack, which is refused with EPERM.
fn one_notice(agent: &Agent, container: &Container, attack: &str, types: &[&str]) {
    assert_eq!(container.sh(&format!("observer-attacks {attack}")).code, libc::EPERM, "{attack}");
    agent.settle();
    let told = agent.alerts_of(&container.id);
    let [alert] = told.as_slice() else { panic!("{attack}: not one alert: {told:#?}") };
    assert_eq!((alert.rule(), alert.severity()), ("namespace.nested", "notice"), "{}", alert.line);
    assert_eq!(alert.text("/evidence/errno"), "EPERM", "{}", alert.line);
    assert_eq!(alert.text("/evidence/syscall"), "clone", "{}", alert.line);
    assert_eq!(alert.json["evidence"]["types"], serde_json::json!(types), "{}", alert.line);
    assert_eq!(alert.number("/count"), Some(1), "{}", alert.line);
}

/// By `copy_namespaces`, for want of CAP_SYS_ADMIN; and by `copy_creds`, which makes the user namespace before anything
/// else: all that was asked for is told.
#[test]
fn a_refused_clone3_is_one_notice() {
    let Some(lab) = lab() else { return };
    for (name, attack, types) in [
        ("refused", "clone-newns uts,net true", ["net", "uts"]),
        ("chrooted", "clone-chrooted /tmp user,mnt", ["mnt", "user"]),
    ] {
        let agent = lab.agent();
        let container = lab.container(Spec::new(name));
        one_notice(&agent, &container, attack, &types);
        agent.finish();
    }
}

#[test]
fn a_refused_32_bit_clone_is_one_notice() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    if sees_behind_the_call(&agent) {
        let container = lab.container(Spec::new("clone32"));
        one_notice(&agent, &container, "clone32 uts,net", &["net", "uts"]);
    } else {
        skipped("32-bit clones are seen by functions only, and this kernel does not allow programs there");
    }
    agent.finish();
}

/// unshare is told by its own hook; what refuses a clone is not asked.
#[test]
fn a_refused_unshare_is_not_told_as_a_clone_too() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("unshare"));
    let before = agent.events("clone");
    assert_eq!(container.sh("observer-attacks unshare uts").code, libc::EPERM);
    agent.settle();
    let told = agent.alerts_of(&container.id);
    assert!(matches!(told.as_slice(), [alert] if alert.text("/evidence/syscall") == "unshare"), "{told:#?}");
    assert_eq!(agent.events("clone"), before);
    agent.finish();
}

/// A thread that rewrites the flags while clone3 is under way changes nothing of what is told.
#[test]
fn rewriting_the_flags_during_a_call_hides_nothing() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    if !sees_behind_the_call(&agent) {
        skipped("what clone3 was given is read from memory here, at the end of the call");
        agent.finish();
        return;
    }
    let events = Events::follow(&agent);
    let container = lab.container(Spec::new("race"));
    let refused = pace::count(200) as usize;
    container.sh(&format!("observer-attacks clone3-race uts {refused}")).ok();
    let told = || {
        let ours = events.all().into_iter().filter(|event| {
            event["kind"] == "clone" && event["container"]["id"].as_str() == Some(&container.id)
        });
        ours.map(|event| (event["result"].clone(), event["arguments"].clone())).collect::<Vec<_>>()
    };
    let all = wait::until_true(pace::patience(Duration::from_secs(5)), || told().len() >= refused);
    agent.settle();
    let told = told();
    assert!(all && told.len() == refused, "{} of {refused} refusals were told: {told:?}", told.len());
    let wrong = told.iter().find(|(result, arguments)| result != "EPERM" || arguments != "flags=uts");
    assert!(wrong.is_none(), "{wrong:?}");
    agent.finish();
}
