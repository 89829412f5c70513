//! Where alerts are delivered beyond standard output: the list `sinks`.

mod address;
mod entry;
mod request;

use std::{collections::BTreeMap, path::PathBuf};

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    named::{self, name},
    schema, values,
};
use crate::model::Severity;
pub use address::{HostPort, SyslogAddress};
pub(super) use request::OURS;
use request::{header_files, headers, labels, url, write_uri};

/// Sinks beyond this number are a mistake.
pub(super) const MAX_SINKS: usize = 32;

/// One entry of `sinks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schemars(transform = schema::by_type)]
pub enum SinkConfig {
    File(FileSink),
    Syslog(SyslogSink),
    Webhook(WebhookSink),
    Alertmanager(AlertmanagerSink),
    Otlp(OtlpSink),
}

impl SinkConfig {
    pub fn name(&self) -> &str {
        match self {
            SinkConfig::File(it) => &it.name,
            SinkConfig::Syslog(it) => &it.name,
            SinkConfig::Webhook(it) => &it.name,
            SinkConfig::Alertmanager(it) => &it.name,
            SinkConfig::Otlp(it) => &it.name,
        }
    }

    /// The files that have its secrets: headers' values, and what TLS speaks with. A file has none.
    pub(super) fn secrets(&mut self) -> Secrets<'_> {
        match self {
            SinkConfig::File(_) => Secrets::default(),
            SinkConfig::Syslog(it) => Secrets { tls: Some(&mut it.tls), header_files: None },
            SinkConfig::Webhook(it) => {
                Secrets { tls: Some(&mut it.tls), header_files: Some(&mut it.header_files) }
            }
            SinkConfig::Alertmanager(it) => {
                Secrets { tls: Some(&mut it.tls), header_files: Some(&mut it.header_files) }
            }
            SinkConfig::Otlp(it) => {
                Secrets { tls: Some(&mut it.tls), header_files: Some(&mut it.header_files) }
            }
        }
    }

    pub fn filter(&self) -> &SinkFilter {
        match self {
            SinkConfig::File(it) => &it.filter,
            SinkConfig::Syslog(it) => &it.filter,
            SinkConfig::Webhook(it) => &it.filter,
            SinkConfig::Alertmanager(it) => &it.filter,
            SinkConfig::Otlp(it) => &it.filter,
        }
    }
}

#[derive(Default)]
pub(super) struct Secrets<'a> {
    pub tls: Option<&'a mut Tls>,
    pub header_files: Option<&'a mut BTreeMap<String, PathBuf>>,
}

/// Which alerts a sink gets. Empty parts let everything through; all that are there must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SinkFilter {
    /// Alerts of this severity and above.
    pub severity: Option<Severity>,
    /// Rules by their ids, with `*` and `?`.
    #[serde(deserialize_with = "values::patterns")]
    #[schemars(schema_with = "schema::patterns")]
    pub rules: Vec<String>,
    /// Kubernetes namespaces of the container's pod, with `*` and `?`. What is in no pod does not fit.
    #[serde(deserialize_with = "values::patterns")]
    #[schemars(schema_with = "schema::patterns")]
    pub namespaces: Vec<String>,
}

/// What an alert looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As on standard output.
    #[default]
    Native,
    /// OCSF Detection Finding (class 2004).
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
    /// ArcSight's Common Event Format.
    Cef,
}

/// A file with a line for each alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// Of a-z, 0-9, - and _, and no other sink's: the label `sink` of `observer_sink_*`, and its place in the store.
    #[serde(deserialize_with = "name")]
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    #[serde(default)]
    pub filter: SinkFilter,
    #[serde(default)]
    pub format: Format,
    /// Of the file; its directory must be there.
    #[serde(deserialize_with = "values::absolute_path")]
    #[schemars(schema_with = "schema::path")]
    pub path: PathBuf,
    /// A new file is begun when this one has so many bytes; 0 for never.
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: u64,
    /// ... or is so old; 0 for never.
    #[serde(default)]
    #[schemars(range(max = u32::MAX))]
    pub rotate_hours: u32,
    /// Older files that are kept.
    #[serde(default = "keep", deserialize_with = "values::keep")]
    #[schemars(range(min = values::KEEP.min, max = values::KEEP.max))]
    pub keep: u32,
}

fn rotate_bytes() -> u64 {
    100 << 20
}
fn keep() -> u32 {
    5
}

/// RFC 5424.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogSink {
    /// Of a-z, 0-9, - and _, and no other sink's: the label `sink` of `observer_sink_*`, and its place in the store.
    #[serde(deserialize_with = "name")]
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    #[serde(default)]
    pub filter: SinkFilter,
    #[serde(default)]
    pub format: Format,
    /// Where to. Over UDP and local sockets nobody says whether anything arrives.
    #[schemars(schema_with = "schema::syslog_address")]
    pub address: SyslogAddress,
    #[serde(default)]
    pub facility: Facility,
    #[serde(default)]
    pub tls: Tls,
    /// For a connection, and for an answer.
    #[serde(default = "timeout", deserialize_with = "values::timeout_seconds")]
    #[schemars(range(min = values::TIMEOUT_SECONDS.min, max = values::TIMEOUT_SECONDS.max))]
    pub timeout_seconds: u64,
}

/// HTTP POST of batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSink {
    /// Of a-z, 0-9, - and _, and no other sink's: the label `sink` of `observer_sink_*`, and its place in the store.
    #[serde(deserialize_with = "name")]
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    #[serde(default)]
    pub filter: SinkFilter,
    #[serde(default)]
    pub format: Format,
    /// Where to; no user and password in it.
    #[serde(serialize_with = "write_uri", deserialize_with = "url")]
    #[schemars(schema_with = "schema::url")]
    pub url: Uri,
    #[serde(default)]
    pub body: Body,
    /// Alerts in one request, at most.
    #[serde(default = "batch", deserialize_with = "values::batch")]
    #[schemars(range(min = values::BATCH.min, max = values::BATCH.max))]
    pub batch: u32,
    /// Compress the requests' bodies.
    #[serde(default)]
    pub gzip: bool,
    /// Added to each request.
    #[serde(default, deserialize_with = "headers")]
    #[schemars(schema_with = "schema::headers")]
    pub headers: BTreeMap<String, String>,
    /// Headers whose value is the first line of a file, read at each request: for secrets.
    #[serde(default, deserialize_with = "header_files")]
    #[schemars(schema_with = "schema::header_files")]
    pub header_files: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub tls: Tls,
    /// For a connection, and for an answer.
    #[serde(default = "timeout", deserialize_with = "values::timeout_seconds")]
    #[schemars(range(min = values::TIMEOUT_SECONDS.min, max = values::TIMEOUT_SECONDS.max))]
    pub timeout_seconds: u64,
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A line for each alert.
    #[default]
    Lines,
    /// One JSON array.
    Array,
}

/// Prometheus Alertmanager, API v2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSink {
    /// Of a-z, 0-9, - and _, and no other sink's: the label `sink` of `observer_sink_*`, and its place in the store.
    #[serde(deserialize_with = "name")]
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    #[serde(default)]
    pub filter: SinkFilter,
    /// Of Alertmanager; `/api/v2/alerts` is added.
    #[serde(serialize_with = "write_uri", deserialize_with = "url")]
    #[schemars(schema_with = "schema::url")]
    pub url: Uri,
    /// Labels added to all alerts.
    #[serde(default, deserialize_with = "labels")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Added to each request.
    #[serde(default, deserialize_with = "headers")]
    #[schemars(schema_with = "schema::headers")]
    pub headers: BTreeMap<String, String>,
    /// Headers whose value is the first line of a file, read at each request: for secrets.
    #[serde(default, deserialize_with = "header_files")]
    #[schemars(schema_with = "schema::header_files")]
    pub header_files: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub tls: Tls,
    /// For a connection, and for an answer.
    #[serde(default = "timeout", deserialize_with = "values::timeout_seconds")]
    #[schemars(range(min = values::TIMEOUT_SECONDS.min, max = values::TIMEOUT_SECONDS.max))]
    pub timeout_seconds: u64,
}

/// OpenTelemetry logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpSink {
    /// Of a-z, 0-9, - and _, and no other sink's: the label `sink` of `observer_sink_*`, and its place in the store.
    #[serde(deserialize_with = "name")]
    #[schemars(schema_with = "schema::name")]
    pub name: String,
    #[serde(default)]
    pub filter: SinkFilter,
    /// Of the receiver; with `http`, `/v1/logs` is added if there is no path.
    #[serde(serialize_with = "write_uri", deserialize_with = "url")]
    #[schemars(schema_with = "schema::url")]
    pub url: Uri,
    /// With `http`, the messages are protobuf.
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// With `http` only.
    #[serde(default)]
    pub gzip: bool,
    /// Added to each request.
    #[serde(default, deserialize_with = "headers")]
    #[schemars(schema_with = "schema::headers")]
    pub headers: BTreeMap<String, String>,
    /// Headers whose value is the first line of a file, read at each request: for secrets.
    #[serde(default, deserialize_with = "header_files")]
    #[schemars(schema_with = "schema::header_files")]
    pub header_files: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub tls: Tls,
    /// For a connection, and for an answer.
    #[serde(default = "timeout", deserialize_with = "values::timeout_seconds")]
    #[schemars(range(min = values::TIMEOUT_SECONDS.min, max = values::TIMEOUT_SECONDS.max))]
    pub timeout_seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    #[default]
    Http,
    Grpc,
}

fn timeout() -> u64 {
    10
}
fn batch() -> u32 {
    100
}

/// Where TLS is spoken: whom to trust, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates of authorities, PEM; the system's if absent.
    #[serde(deserialize_with = "values::optional_path")]
    #[schemars(schema_with = "schema::optional_path")]
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM, for a receiver that asks for one; with `key`.
    #[serde(deserialize_with = "values::optional_path")]
    #[schemars(schema_with = "schema::optional_path")]
    pub cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[serde(deserialize_with = "values::optional_path")]
    #[schemars(schema_with = "schema::optional_path")]
    pub key: Option<PathBuf>,
}

/// RFC 5424, table 1: those that a daemon may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Facility {
    User = 1,
    #[default]
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// The list, in which a name stands once.
pub(super) fn sinks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SinkConfig>, D::Error> {
    named::named_once(deserializer, MAX_SINKS, "sink", SinkConfig::name)
}
