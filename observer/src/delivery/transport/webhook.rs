//! Batches of alerts by HTTP POST.

use std::time::Duration;

use super::{
    Failure,
    http::{Body, Http, Target},
};
use crate::{
    config::{Body as BodyKind, Format, WebhookSink},
    delivery::{format, worker::Outgoing},
};

pub struct Webhook {
    http: Http,
    path: String,
    format: Format,
    body: BodyKind,
    gzip: bool,
}

impl Webhook {
    pub fn new(config: &WebhookSink) -> Self {
        let target = Target {
            uri: config.url.clone(),
            tls: config.tls.clone(),
            headers: config.headers.clone(),
            header_files: config.header_files.clone(),
            timeout: Duration::from_secs(config.timeout_seconds),
        };
        Webhook {
            path: config.url.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            http: Http::new(target),
            format: config.format,
            body: config.body,
            gzip: config.gzip,
        }
    }

    pub async fn send(&mut self, part: &[Outgoing]) -> Result<(), Failure> {
        let (bytes, content_type) = self.encode(part);
        self.http.post(&self.path, Body { content_type, bytes, gzip: self.gzip }).await.map(drop)
    }

    fn encode(&self, part: &[Outgoing]) -> (Vec<u8>, &'static str) {
        let mut bytes = Vec::new();
        let array = self.body == BodyKind::Array;
        if array {
            bytes.push(b'[');
        }
        for (n, outgoing) in part.iter().enumerate() {
            if array && n > 0 {
                bytes.push(b',');
            }
            let line = format::line(self.format, outgoing);
            match self.format {
                // No JSON by itself.
                Format::Cef if array => {
                    let text = String::from_utf8_lossy(&line);
                    bytes.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
                }
                _ => bytes.extend_from_slice(&line),
            }
            if !array {
                bytes.push(b'\n');
            }
        }
        if array {
            bytes.push(b']');
        }
        let content_type = match (self.body, self.format) {
            (BodyKind::Array, _) => "application/json",
            (BodyKind::Lines, Format::Cef) => "text/plain; charset=utf-8",
            (BodyKind::Lines, _) => "application/x-ndjson",
        };
        (bytes, content_type)
    }
}
