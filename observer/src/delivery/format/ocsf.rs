//! OCSF 1.3, Detection Finding: <https://schema.ocsf.io/1.3.0/classes/detection_finding>, with the profiles container and
//! host. What it has no place for is in `evidences[].data`: the alert itself.

use serde_json::{Map, Value, json};

use super::{PRODUCT, VENDOR, VERSION, put, time};
use crate::model::{Alert, AlertState, ContainerRef, ProcessRef, Severity};

const SCHEMA: &str = "1.3.0";
const CATEGORY: u32 = 2;
const CLASS: u32 = 2004;
/// activity_id
const CREATE: u32 = 1;
const UPDATE: u32 = 2;
const CLOSE: u32 = 3;

pub fn event(alert: &Alert) -> Value {
    let activity = match alert.state {
        Some(AlertState::Resolved) => CLOSE,
        _ if alert.count > 1 || alert.incident != alert.id => UPDATE,
        _ => CREATE,
    };
    let (activity_name, status_id, status) = match activity {
        CREATE => ("Create", 1, "New"),
        UPDATE => ("Update", 2, "In Progress"),
        _ => ("Close", 4, "Resolved"),
    };
    let (severity_id, severity) = match alert.severity {
        Severity::Info => (1, "Informational"),
        Severity::Notice => (2, "Low"),
        Severity::Warning => (4, "High"),
        Severity::Critical => (5, "Critical"),
    };
    let millis = time(&alert.time).as_millisecond();
    let mut finding = Map::new();
    finding.insert("uid".into(), json!(alert.incident));
    finding.insert("title".into(), json!(alert.title));
    finding.insert("desc".into(), json!(alert.message));
    finding.insert("types".into(), json!([alert.rule]));
    finding.insert(
        "analytic".into(),
        json!({"type_id": 1, "type": "Rule", "uid": alert.rule, "name": alert.title}),
    );
    finding.insert("created_time".into(), json!(millis));
    let attacks: Vec<Value> =
        alert.mitre.iter().map(|id| json!({"version": "16", "technique": {"uid": id}})).collect();
    put(&mut finding, "attacks", (!attacks.is_empty()).then(|| attacks.into()));
    let mut evidence = Map::new();
    put(&mut evidence, "process", alert.process.as_ref().map(process));
    put(&mut evidence, "container", alert.container.as_ref().map(container));
    evidence.insert("data".into(), serde_json::to_value(alert).unwrap_or_default());
    json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": CATEGORY,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Detection Finding",
        "type_uid": CLASS * 100 + activity,
        "type_name": format!("Detection Finding: {activity_name}"),
        "time": millis,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "message": alert.message,
        "count": alert.count,
        "finding_info": finding,
        "evidences": [evidence],
        "device": {"hostname": alert.node, "type_id": 1, "type": "Server"},
        "metadata": {
            "version": SCHEMA,
            "uid": alert.id,
            "original_time": alert.time,
            "profiles": ["host"],
            "product": {"name": PRODUCT, "vendor_name": VENDOR, "version": VERSION},
        },
    })
}

fn process(process: &ProcessRef) -> Value {
    let mut object = Map::new();
    object.insert("pid".into(), json!(process.pid));
    object.insert("tid".into(), json!(process.tid));
    object.insert("name".into(), json!(process.comm));
    object.insert("created_time".into(), json!(time(&process.start_time).as_millisecond()));
    object.insert("user".into(), json!({"uid": process.uid.to_string()}));
    put(&mut object, "cmd_line", (!process.args.is_empty()).then(|| process.args.join(" ").into()));
    let file = process.exe.as_ref().map(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        json!({"name": name, "path": path, "type_id": 1, "type": "Regular File"})
    });
    put(&mut object, "file", file);
    let parent = process.ancestors.first().map(|it| json!({"pid": it.pid, "name": it.comm}));
    put(&mut object, "parent_process", parent);
    object.into()
}

fn container(container: &ContainerRef) -> Value {
    let mut object = Map::new();
    object.insert("uid".into(), json!(container.id));
    object.insert("runtime".into(), json!(container.runtime));
    put(&mut object, "name", container.name.as_ref().map(|it| json!(it)));
    put(
        &mut object,
        "image",
        container
            .image
            .as_ref()
            .map(|it| json!({"name": it, "uid": container.image_digest.as_ref().unwrap_or(it)})),
    );
    put(&mut object, "orchestrator", container.pod.as_ref().map(|_| json!("kubernetes")));
    // Static pods have a hash in its place.
    let uuid = |uid: &&String| uid.len() == 36 && uuid::Uuid::try_parse(uid).is_ok();
    let pod = container.pod.as_ref().map(|pod| &pod.uid).filter(uuid);
    put(&mut object, "pod_uuid", pod.map(|uid| json!(uid)));
    object.into()
}
