//! Elastic Common Schema 8.11. What it has no field for is below `observer_alert`, a name that is none of its own.

use serde_json::{Map, Value, json};

use super::{PRODUCT, VENDOR, VERSION, put};
use crate::model::{Alert, AlertState, ContainerRef, ProcessRef, Severity};

const SCHEMA: &str = "8.11.0";

pub fn document(alert: &Alert) -> Value {
    let severity = match alert.severity {
        Severity::Info => 21,
        Severity::Notice => 47,
        Severity::Warning => 73,
        Severity::Critical => 99,
    };
    let event_type = match alert.state {
        Some(AlertState::Resolved) => "end",
        _ if alert.evidence.errno.is_some() || alert.evidence.mode.is_some() => "denied",
        _ => "info",
    };
    let mut object = Map::new();
    object.insert("@timestamp".into(), json!(alert.time));
    object.insert("ecs".into(), json!({"version": SCHEMA}));
    object.insert("message".into(), json!(alert.message));
    object.insert("host".into(), json!({"name": alert.node, "hostname": alert.node}));
    object.insert(
        "observer".into(),
        json!({"vendor": VENDOR, "product": PRODUCT, "version": VERSION, "type": "sensor"}),
    );
    object.insert(
        "event".into(),
        json!({
            "kind": "alert",
            "category": ["intrusion_detection"],
            "type": [event_type],
            "id": alert.id,
            "module": PRODUCT,
            "dataset": "observer.alert",
            "severity": severity,
            "action": alert.rule,
        }),
    );
    object.insert("log".into(), json!({"level": alert.severity.name()}));
    object.insert("rule".into(), json!({"id": alert.rule, "name": alert.title, "ruleset": PRODUCT}));
    let threat = json!({"framework": "MITRE ATT&CK", "technique": {"id": alert.mitre}});
    put(&mut object, "threat", (!alert.mitre.is_empty()).then_some(threat));
    put(&mut object, "container", alert.container.as_ref().map(container));
    put(&mut object, "orchestrator", alert.container.as_ref().and_then(orchestrator));
    put(&mut object, "process", alert.process.as_ref().map(process));
    put(&mut object, "user", alert.process.as_ref().map(|it| json!({"id": it.uid.to_string()})));
    let own = json!({
        "incident": alert.incident,
        "state": alert.state,
        "count": alert.count,
        "attribution": alert.attribution,
        "events_lost_before": alert.events_lost_before,
        "namespaces": alert.namespaces,
        "evidence": alert.evidence,
        "cgroup_path": alert.container.as_ref().and_then(|it| it.cgroup_path.as_ref()),
    });
    object.insert("observer_alert".into(), without_nulls(own));
    object.into()
}

fn container(container: &ContainerRef) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), json!(container.id));
    object.insert("runtime".into(), json!(container.runtime));
    put(&mut object, "name", container.name.as_ref().map(|it| json!(it)));
    put(&mut object, "image", container.image.as_ref().map(|it| image(it, container.image_digest.as_ref())));
    object.into()
}

fn image(name: &str, digest: Option<&String>) -> Value {
    match digest {
        Some(digest) => json!({"name": name, "hash": {"all": [digest]}}),
        None => json!({"name": name}),
    }
}

fn orchestrator(container: &ContainerRef) -> Option<Value> {
    let pod = container.pod.as_ref()?;
    Some(json!({
        "type": "kubernetes",
        "namespace": pod.namespace,
        "resource": {"type": "pod", "name": pod.name, "id": pod.uid},
    }))
}

fn process(process: &ProcessRef) -> Value {
    let mut object = Map::new();
    object.insert("pid".into(), json!(process.pid));
    object.insert("name".into(), json!(process.comm));
    object.insert("start".into(), json!(process.start_time));
    object.insert("thread".into(), json!({"id": process.tid}));
    put(&mut object, "executable", process.exe.as_ref().map(|it| json!(it)));
    if !process.args.is_empty() {
        object.insert("args".into(), json!(process.args));
        object.insert("args_count".into(), json!(process.args.len()));
        object.insert("command_line".into(), json!(process.args.join(" ")));
    }
    let parent = process.ancestors.first().map(|it| json!({"pid": it.pid, "name": it.comm}));
    put(&mut object, "parent", parent);
    object.into()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}
