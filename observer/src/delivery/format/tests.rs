use std::path::Path;

use super::*;
use crate::model::{
    Alert, AlertState, Ancestor, ContainerRef, Evidence, NamespaceSet, NamespaceView, PodRef, ProcessRef,
    Severity,
};

/// An alert with everything, and with text that means something in each format.
pub fn full() -> Alert {
    let mut alert = (*crate::sinks::sample::alert("web broke out | of = its \\ \"box\"\nreally")).clone();
    alert.mitre = vec!["T1611".into()];
    alert.container = Some(ContainerRef {
        image: Some("registry.example/web:1.2@sha256:aa".into()),
        image_digest: Some("sha256:aa".into()),
        cgroup_path: Some("/kubepods/pod1/web".into()),
        pod: Some(PodRef {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "7d9f3f0e-2f0c-4a43-9d9c-1f7e0a4a1b2c".into(),
            container: "web".into(),
        }),
        ..alert.container.clone().expect("a container")
    });
    alert.process = Some(ProcessRef {
        pid: 4242,
        tid: 4243,
        start_time: "2026-01-02T03:04:00.5Z".into(),
        comm: "nsenter".into(),
        exe: Some("/usr/bin/nsenter".into()),
        args: vec!["nsenter".into(), "-t".into(), "1".into(), "a=b|c".into()],
        uid: 0,
        gid: 0,
        ancestors: vec![Ancestor { pid: 4000, comm: "sh".into() }],
    });
    alert.namespaces = Some(NamespaceView {
        expected: NamespaceSet::default(),
        actual: NamespaceSet::default(),
        changed: vec!["mnt".into()],
        host: vec!["mnt".into()],
    });
    alert.evidence =
        Evidence { syscall: Some("setns".into()), door: Some("setns".into()), ..Evidence::default() };
    alert
}

fn outgoing(alert: Alert) -> Outgoing {
    let json = serde_json::to_vec(&alert).expect("JSON").into();
    Outgoing { alert, json }
}

/// The golden file, or the text itself where it is asked for.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("OBSERVER_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "OBSERVER_BLESS=1 writes {} anew", path.display());
}

fn pretty(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
    // The version in it changes with each release.
    serde_json::to_string_pretty(&value).expect("JSON").replace(VERSION, "VERSION") + "\n"
}

#[test]
fn each_format_is_as_it_was() {
    for (format, name) in [(Format::Ocsf, "sink-ocsf.json"), (Format::Ecs, "sink-ecs.json")] {
        golden(name, &pretty(&line(format, &outgoing(full()))));
    }
    let cef = String::from_utf8(line(Format::Cef, &outgoing(full())).to_vec()).expect("UTF-8");
    golden("sink-cef.txt", &(cef.replace(VERSION, "VERSION") + "\n"));
}

/// The class's own schema, which allows nothing that it does not name: made by ocsf-json-schema (PyPI) from OCSF 1.3.0 with the
/// profile host, all objects embedded.
#[test]
fn ocsf_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema/ocsf-1.3.0-detection_finding.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).expect("the schema")).expect("JSON");
    let validator = jsonschema::draft202012::options().build(&schema).expect("a schema");
    let mut bare = full();
    (bare.container, bare.process, bare.mitre) = (None, None, Vec::new());
    let mut odd = full();
    odd.container.as_mut().expect("a container").pod.as_mut().expect("a pod").uid = "b2d5f0".into();
    let resolved = Alert { state: Some(AlertState::Resolved), count: 3, ..full() };
    for alert in [full(), bare, odd, resolved] {
        let event = ocsf::event(&alert);
        let errors: Vec<String> =
            validator.iter_errors(&event).map(|it| format!("{}: {it}", it.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
    let mut wrong = ocsf::event(&full());
    wrong["colour"] = "red".into();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn the_native_format_is_what_was_stored() {
    let sent = outgoing(full());
    assert_eq!(line(Format::Native, &sent), sent.json);
}

#[test]
fn a_line_is_one_line_and_leaves_out_what_is_not_there() {
    let mut bare = (*crate::sinks::sample::alert("")).clone();
    (bare.container, bare.process) = (None, None);
    for alert in [full(), bare] {
        for format in [Format::Native, Format::Ocsf, Format::Ecs, Format::Cef] {
            let text = String::from_utf8(line(format, &outgoing(alert.clone())).to_vec()).expect("UTF-8");
            assert!(!text.contains('\n') && !text.contains("null"), "{format:?}: {text}");
        }
    }
}

#[test]
fn an_end_is_told() {
    let resolved = Alert { state: Some(AlertState::Resolved), severity: Severity::Warning, ..full() };
    let ocsf = ocsf::event(&resolved);
    assert_eq!(
        (&ocsf["activity_id"], &ocsf["type_uid"], &ocsf["status"]),
        (&3.into(), &200403.into(), &"Resolved".into())
    );
    assert_eq!(ecs::document(&resolved)["event"]["type"], serde_json::json!(["end"]));
    assert!(cef::line(&resolved).contains(" act=resolved "));
    let again = Alert { count: 7, ..full() };
    assert_eq!(ocsf::event(&again)["activity_id"], 2);
}

#[test]
fn cef_escapes_what_means_something() {
    let text = cef::line(&Alert { title: "a|b\\c".into(), ..full() });
    assert!(text.contains("|a\\|b\\\\c|10|rt=1767323045000 "), "{text}");
    assert!(text.contains("msg=web broke out | of \\= its \\\\ \"box\"\\nreally "), "{text}");
}
