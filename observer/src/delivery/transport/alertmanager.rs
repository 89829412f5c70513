//! Prometheus Alertmanager, API v2: POST /api/v2/alerts.
//!
//! Its alerts are told apart by their labels, so these say what the alert is about, and not how often or by which process it
//! came about; that is in the annotations. An alert without an end is let go by Alertmanager after its own
//! `resolve_timeout`; one that is resolved here says so.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Failure,
    http::{Body, Http, Target},
};
use crate::{
    config::AlertmanagerSink,
    delivery::worker::Outgoing,
    model::{Alert, AlertState},
};

pub struct Alertmanager {
    http: Http,
    path: String,
    labels: BTreeMap<String, String>,
}

impl Alertmanager {
    pub fn new(config: &AlertmanagerSink) -> Self {
        let target = Target {
            uri: config.url.clone(),
            tls: config.tls.clone(),
            headers: config.headers.clone(),
            header_files: config.header_files.clone(),
            timeout: Duration::from_secs(config.timeout_seconds),
        };
        Alertmanager {
            path: format!("{}/api/v2/alerts", config.url.path().trim_end_matches('/')),
            http: Http::new(target),
            labels: config.labels.clone(),
        }
    }

    pub async fn send(&mut self, part: &[Outgoing]) -> Result<(), Failure> {
        let alerts: Vec<Value> = part.iter().map(|it| self.alert(&it.alert)).collect();
        let bytes = Value::from(alerts).to_string().into_bytes();
        let body = Body { content_type: "application/json", bytes, gzip: false };
        self.http.post(&self.path, body).await.map(drop)
    }

    fn alert(&self, alert: &Alert) -> Value {
        let container = alert.container.as_ref();
        let pod = container.and_then(|it| it.pod.as_ref());
        let mut labels = Map::new();
        let mut label = |name: &str, value: Option<&str>| {
            // An empty label is none to Alertmanager.
            if let Some(value) = value.filter(|it| !it.is_empty()) {
                labels.insert(name.to_owned(), value.into());
            }
        };
        for (name, value) in &self.labels {
            label(name, Some(value));
        }
        label("alertname", Some(&alert.rule));
        label("severity", Some(alert.severity.name()));
        label("node", Some(&alert.node));
        label("container_id", container.map(|it| it.id.as_str()));
        label("container", container.and_then(|it| it.name.as_deref()));
        label("image", container.and_then(|it| it.image.as_deref()));
        label("namespace", pod.map(|it| it.namespace.as_str()));
        label("pod", pod.map(|it| it.name.as_str()));
        label("incident", Some(&alert.incident));
        let mut annotations = json!({
            "summary": alert.title,
            "description": alert.message,
            "id": alert.id,
            "count": alert.count.to_string(),
        });
        if !alert.mitre.is_empty() {
            annotations["mitre"] = alert.mitre.join(", ").into();
        }
        if let Some(process) = &alert.process {
            annotations["process"] =
                format!("{} (pid {})", process.exe.as_deref().unwrap_or(&process.comm), process.pid).into();
        }
        let mut object = json!({"labels": labels, "annotations": annotations});
        match alert.state {
            Some(AlertState::Resolved) => object["endsAt"] = alert.time.as_str().into(),
            _ => object["startsAt"] = alert.time.as_str().into(),
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::format::tests::full;

    fn sink() -> Alertmanager {
        let text = "sinks: [{type: alertmanager, name: a, url: \"http://127.0.0.1:1/base/\", labels: {cluster: c1, severity: no}}]";
        let config = crate::config::Config::parse("t".as_ref(), text).expect("valid");
        match &config.sinks[0] {
            crate::config::SinkConfig::Alertmanager(config) => Alertmanager::new(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn labels_say_what_it_is_about_and_an_end_is_an_end() {
        let sink = sink();
        assert_eq!(sink.path, "/base/api/v2/alerts");
        let firing = sink.alert(&full());
        let expected = json!({
            "alertname": "namespace.escape", "severity": "critical", "node": "n1", "container_id": "3f2a9c1b0d4e",
            "container": "web", "image": "registry.example/web:1.2@sha256:aa", "namespace": "shop", "pod": "web-0",
            "incident": "0194263c-6e08-7000-8000-000000000001", "cluster": "c1",
        });
        assert_eq!(firing["labels"], expected);
        assert_eq!(firing["annotations"]["process"], "/usr/bin/nsenter (pid 4242)");
        assert_eq!(firing["startsAt"], "2026-01-02T03:04:05.000000006Z");
        assert!(firing.get("endsAt").is_none());
        let resolved = sink.alert(&Alert { state: Some(AlertState::Resolved), count: 9, ..full() });
        assert_eq!(resolved["labels"], expected, "or it would resolve nothing");
        assert_eq!(resolved["endsAt"], "2026-01-02T03:04:05.000000006Z");
    }
}
