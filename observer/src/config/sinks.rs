//! Where alerts are delivered beyond standard output: the list `sinks`.
//!
//! A sink's `type` stands first, so that everything after it is read by the type's own structure: an error has the line
//! and the keys of what is really there. (serde's tagged enumerations keep what they read in between, without lines.)

use std::{collections::BTreeMap, fmt, path::PathBuf};

use http::Uri;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use super::{schema, values};
use crate::model::Severity;

/// Sinks beyond this number are a mistake.
pub(super) const MAX_SINKS: usize = 32;
/// Names are labels of metrics and keys of the store.
pub(super) const MAX_NAME_BYTES: usize = 63;

/// One entry of `sinks`; its `type` stands first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
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

/// `udp://HOST:PORT`, `tcp://HOST:PORT`, `tls://HOST:PORT`, `unix:///PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    Udp(HostPort),
    Tcp(HostPort),
    Tls(HostPort),
    Unix(PathBuf),
}

/// A name or address, without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl SyslogAddress {
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return path.is_absolute().then_some(SyslogAddress::Unix(path));
        }
        let (scheme, rest) = text.split_once("://")?;
        let (host, port) = rest.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']')?;
                inner.parse::<std::net::Ipv6Addr>().ok()?;
                inner
            }
            None => {
                let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                (!host.is_empty() && host.chars().all(harmless)).then_some(host)?
            }
        };
        let place = HostPort { host: host.to_owned(), port };
        match scheme {
            "udp" => Some(SyslogAddress::Udp(place)),
            "tcp" => Some(SyslogAddress::Tcp(place)),
            "tls" => Some(SyslogAddress::Tls(place)),
            _ => None,
        }
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogAddress::Udp(place) => write!(f, "udp://{place}"),
            SyslogAddress::Tcp(place) => write!(f, "tcp://{place}"),
            SyslogAddress::Tls(place) => write!(f, "tls://{place}"),
            SyslogAddress::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Serialize for SyslogAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SyslogAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH";
        SyslogAddress::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
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

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    File,
    Syslog,
    Webhook,
    Alertmanager,
    Otlp,
}

impl<'de> Deserialize<'de> for SinkConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = SinkConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SinkConfig, A::Error> {
                let expected = "`type` as the first key of a sink";
                match map.next_key::<String>()? {
                    Some(key) if key == "type" => {}
                    Some(key) => return Err(A::Error::invalid_value(Unexpected::Other(&key), &expected)),
                    None => return Err(A::Error::invalid_value(Unexpected::Map, &expected)),
                }
                let kind = map.next_value()?;
                let rest = MapAccessDeserializer::new(map);
                match kind {
                    Type::File => Deserialize::deserialize(rest).map(SinkConfig::File),
                    Type::Syslog => Deserialize::deserialize(rest).map(SinkConfig::Syslog),
                    Type::Webhook => Deserialize::deserialize(rest).map(SinkConfig::Webhook),
                    Type::Alertmanager => Deserialize::deserialize(rest).map(SinkConfig::Alertmanager),
                    Type::Otlp => Deserialize::deserialize(rest).map(SinkConfig::Otlp),
                }
            }
        }
        deserializer.deserialize_map(Entry)
    }
}

/// The list, in which a name stands once.
pub(super) fn sinks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SinkConfig>, D::Error> {
    named_once(deserializer, MAX_SINKS, "sink", SinkConfig::name)
}

/// Reads a list of at most `limit` things with different names.
pub(super) fn named_once<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    limit: usize,
    what: &'static str,
    name: fn(&T) -> &str,
) -> Result<Vec<T>, D::Error> {
    struct List<T> {
        limit: usize,
        what: &'static str,
        name: fn(&T) -> &str,
    }
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list: Vec<T> = Vec::new();
            while let Some(item) = seq.next_element_seed(Once { list: &list, of: &self })? {
                list.push(item);
            }
            Ok(list)
        }
    }
    /// Checked where the item is read, so that an error has its line.
    struct Once<'a, T> {
        list: &'a [T],
        of: &'a List<T>,
    }
    impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Once<'_, T> {
        type Value = T;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            let item = T::deserialize(deserializer)?;
            let List { limit, what, name } = self.of;
            if self.list.len() == *limit {
                return Err(D::Error::custom(format!("more than {limit} of these, expected fewer")));
            }
            if self.list.iter().any(|it| name(it) == name(&item)) {
                let name = name(&item);
                return Err(D::Error::custom(format!(
                    "a second {what} with the name `{name}`, expected different names"
                )));
            }
            Ok(item)
        }
    }
    deserializer.deserialize_seq(List { limit, what, name })
}

pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let harmless = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.chars().all(harmless)
        && !RESERVED.contains(&&*text)
    {
        Ok(text)
    } else {
        let expected = "a name of at most 63 of a-z, 0-9, - and _, other than stdout, socket and store";
        Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

/// Labels that metrics have already.
pub(super) const RESERVED: &[&str] = &["stdout", "socket", "store"];

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let text = String::deserialize(deserializer)?;
    let good = |uri: &Uri| {
        // A password in a URL would be a secret in the configuration, and in whatever shows the URL.
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|it| !it.as_str().contains('@'))
    };
    let expected = "http://HOST[:PORT][/PATH] or https://..., without user and password";
    text.parse().ok().filter(good).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

fn write_uri<S: serde::Serializer>(uri: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(uri)
}

/// Headers that are ours to set.
pub(super) const OURS: &[&str] =
    &["host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "te"];

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct HeaderName(String);

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match http::HeaderName::try_from(&text) {
            Ok(name) if !OURS.contains(&name.as_str()) => Ok(HeaderName(text)),
            _ => Err(D::Error::invalid_value(
                Unexpected::Str(&text),
                &"the name of a header that is not set anyway",
            )),
        }
    }
}

#[derive(Clone)]
struct HeaderValue(String);

impl<'de> Deserialize<'de> for HeaderValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match http::HeaderValue::try_from(&text) {
            Ok(_) => Ok(HeaderValue(text)),
            Err(_) => Err(D::Error::invalid_value(
                Unexpected::Str(&text),
                &"a header's value: visible ASCII characters",
            )),
        }
    }
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<HeaderName, HeaderValue>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, value)| (name.0, value.0)).collect())
}

fn header_files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, PathBuf>, D::Error> {
    let map = BTreeMap::<HeaderName, values::AbsolutePath>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, value)| (name.0, value.0)).collect())
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Label(String);
    impl<'de> Deserialize<'de> for Label {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                Ok(Label(text))
            } else {
                let expected = "a label's name: letters, digits and _, with no digit first";
                Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
            }
        }
    }
    let map = BTreeMap::<Label, String>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, value)| (name.0, value)).collect())
}
