//! OpenTelemetry logs (opentelemetry-proto 1.3: collector/logs/v1/logs_service.proto), over HTTP or gRPC.
//!
//! The eight messages that a log record takes are written down here, as the CRI's are: the generated crates bring an SDK.

use std::time::Duration;

use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Failure, Refused,
    http::{Body, Http, Target},
    tls,
};
use crate::{
    config::{OtlpProtocol, OtlpSink},
    delivery::{format, worker::Outgoing},
    host::cri::grpc::{Connection, GrpcError, UNAVAILABLE_CODES, UNIMPLEMENTED},
    model::{Alert, Severity},
};

const HTTP_PATH: &str = "/v1/logs";
const GRPC_METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_REASON_CHARS: usize = 200;
/// grpc: doc/statuscodes.md. The service is not there, or under another name; we may not call it; or it does not know us.
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const UNAUTHENTICATED: u32 = 16;
/// Deeper than any alert.
const MAX_DEPTH: usize = 16;

pub struct Otlp {
    node: String,
    gzip: bool,
    way: Way,
}

enum Way {
    Http { http: Http, path: String },
    Grpc { target: Target, connection: Option<Connection> },
}

impl Otlp {
    pub fn new(config: &OtlpSink, node: &str) -> Self {
        let target = Target {
            uri: config.url.clone(),
            tls: config.tls.clone(),
            headers: config.headers.clone(),
            header_files: config.header_files.clone(),
            timeout: Duration::from_secs(config.timeout_seconds),
        };
        let way = match config.protocol {
            OtlpProtocol::Grpc => Way::Grpc { target, connection: None },
            OtlpProtocol::Http => {
                let path = match config.url.path_and_query().map(|it| it.as_str()) {
                    None | Some("" | "/") => HTTP_PATH.to_owned(),
                    Some(path) => path.to_owned(),
                };
                Way::Http { http: Http::new(target), path }
            }
        };
        Otlp { node: node.to_owned(), gzip: config.gzip, way }
    }

    pub async fn send(&mut self, part: &[Outgoing]) -> Result<Option<Refused>, Failure> {
        let request = request(part, &self.node);
        let answer = match &mut self.way {
            Way::Http { http, path } => {
                let bytes = request.encode_to_vec();
                let body = Body { content_type: "application/x-protobuf", bytes, gzip: self.gzip };
                let answer = http.post(path, body).await?;
                // It was taken: a body that is none of ours (a proxy's, say) changes nothing about that.
                ExportLogsResponse::decode(answer).unwrap_or_default()
            }
            Way::Grpc { target, connection } => {
                let timeout = target.timeout;
                let result = match tokio::time::timeout(timeout, call(target, connection, &request)).await {
                    Ok(result) => result,
                    Err(_) => Err(Failure::retry(format!("no answer within {} s", timeout.as_secs()))),
                };
                if result.is_err() {
                    *connection = None;
                }
                result?
            }
        };
        let partial = answer.partial_success.filter(|it| it.rejected_log_records > 0);
        Ok(partial.map(|it| Refused {
            count: u64::try_from(it.rejected_log_records).unwrap_or(0).min(part.len() as u64),
            why: it.error_message.chars().take(MAX_REASON_CHARS).collect(),
        }))
    }
}

async fn call(
    target: &Target,
    kept: &mut Option<Connection>,
    request: &ExportLogsRequest,
) -> Result<ExportLogsResponse, Failure> {
    let headers = target.read_headers()?;
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(open(target).await?),
    };
    let answer: Result<ExportLogsResponse, GrpcError> =
        connection.ask_with(GRPC_METHOD, &headers, request, MAX_ANSWER_BYTES).await;
    answer.map_err(|error| {
        let GrpcError::Status { code, reason } = error else { return Failure::retry(error) };
        let why = format!("gRPC status {code}: {reason}");
        match code {
            UNAUTHENTICATED => Failure::Denied { why, perhaps: false },
            PERMISSION_DENIED | NOT_FOUND | UNIMPLEMENTED => Failure::Denied { why, perhaps: true },
            code if UNAVAILABLE_CODES.contains(&code) => Failure::retry(why),
            _ => Failure::Rejected { why },
        }
    })
}

async fn open(target: &Target) -> Result<Connection, Failure> {
    let stream = target.connect().await?;
    let scheme = target.uri.scheme_str().unwrap_or("http");
    let authority = target.uri.authority().map(|it| it.as_str()).unwrap_or_default();
    let base = format!("{scheme}://{authority}");
    if target.is_https() {
        let stream =
            tls::connect(&target.tls, target.host(), &["h2"], stream).await.map_err(Failure::retry)?;
        over(stream, base).await
    } else {
        over(stream, base).await
    }
}

async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    base: String,
) -> Result<Connection, Failure> {
    Connection::over(stream, base).await.map_err(Failure::retry)
}

fn request(part: &[Outgoing], node: &str) -> ExportLogsRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "observer"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("host.name", node),
        ],
    };
    let scope = Scope { name: "observer.alert".into(), version: env!("CARGO_PKG_VERSION").into() };
    let log_records = part.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records }];
    ExportLogsRequest { resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs }] }
}

fn record(outgoing: &Outgoing) -> LogRecord {
    let alert = &outgoing.alert;
    // opentelemetry-proto: logs/v1/logs.proto, SeverityNumber.
    let (severity_number, severity_text) = match alert.severity {
        Severity::Info => (9, "INFO"),
        Severity::Notice => (10, "INFO2"),
        Severity::Warning => (13, "WARN"),
        Severity::Critical => (21, "FATAL"),
    };
    let body: Value = serde_json::from_slice(&outgoing.json).unwrap_or_default();
    LogRecord {
        time_unix_nano: format::time(&alert.time).as_nanosecond().try_into().unwrap_or_default(),
        observed_time_unix_nano: jiff::Timestamp::now().as_nanosecond().try_into().unwrap_or_default(),
        severity_number,
        severity_text: severity_text.into(),
        body: Some(any(&body, 0)),
        attributes: attributes(alert),
        event_name: "observer.alert".into(),
    }
}

/// By OpenTelemetry's semantic conventions where there is one.
fn attributes(alert: &Alert) -> Vec<KeyValue> {
    let container = alert.container.as_ref();
    let pod = container.and_then(|it| it.pod.as_ref());
    let process = alert.process.as_ref();
    let mut list = vec![
        text("log.record.uid", &alert.id),
        text("observer.rule", &alert.rule),
        text("observer.severity", alert.severity.name()),
        text("observer.incident", &alert.incident),
        text("observer.message", &alert.message),
    ];
    let optional = [
        ("container.id", container.map(|it| it.id.as_str())),
        ("container.name", container.and_then(|it| it.name.as_deref())),
        ("container.image.name", container.and_then(|it| it.image.as_deref())),
        ("container.runtime", container.map(|it| it.runtime.as_str())),
        ("k8s.namespace.name", pod.map(|it| it.namespace.as_str())),
        ("k8s.pod.name", pod.map(|it| it.name.as_str())),
        ("k8s.pod.uid", pod.map(|it| it.uid.as_str())),
        ("process.executable.path", process.and_then(|it| it.exe.as_deref())),
    ];
    list.extend(optional.into_iter().filter_map(|(key, value)| Some(text(key, value?))));
    if let Some(process) = process {
        list.push(KeyValue { key: "process.pid".into(), value: Some(any(&process.pid.into(), 0)) });
    }
    list
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Kind::Text(value.into())) }) }
}

fn any(value: &Value, depth: usize) -> AnyValue {
    let kind = match value {
        Value::Null => None,
        _ if depth > MAX_DEPTH => None,
        Value::Bool(value) => Some(Kind::Bool(*value)),
        Value::Number(number) => Some(match number.as_i64() {
            Some(number) => Kind::Int(number),
            // Numbers beyond, such as some inodes' and cgroups', keep all their digits as text.
            None if number.is_u64() => Kind::Text(number.to_string()),
            None => Kind::Double(number.as_f64().unwrap_or_default()),
        }),
        Value::String(text) => Some(Kind::Text(text.clone())),
        Value::Array(items) => {
            Some(Kind::Array(ArrayValue { values: items.iter().map(|it| any(it, depth + 1)).collect() }))
        }
        Value::Object(map) => {
            let values = map
                .iter()
                .map(|(key, value)| KeyValue { key: key.clone(), value: Some(any(value, depth + 1)) })
                .collect();
            Some(Kind::Map(MapValue { values }))
        }
    };
    AnyValue { value: kind }
}

#[derive(Clone, PartialEq, Message)]
struct ExportLogsRequest {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportLogsResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_log_records: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    observed_time_unix_nano: u64,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    value: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    #[prost(message, tag = "6")]
    Map(MapValue),
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct MapValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

#[cfg(test)]
#[path = "otlp/tests.rs"]
mod tests;
