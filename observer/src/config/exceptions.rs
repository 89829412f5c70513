//! Alerts that are not wanted: the list `exceptions`.

use std::path::Path;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected},
};

use super::{named, schema, values};

/// Exceptions beyond this number are a mistake.
pub(super) const MAX_EXCEPTIONS: usize = 1024;
pub(super) const MAX_REASON_BYTES: usize = 1024;

/// One entry. What it names must all fit; see [`crate::exceptions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExceptionConfig {
    pub name: String,
    pub reason: String,
    /// The last day on which it applies, UTC.
    #[serde(serialize_with = "write_date")]
    pub expires: Date,
    pub rules: Vec<String>,
    pub images: Vec<String>,
    pub image_digests: Vec<String>,
    pub containers: Vec<String>,
    pub namespaces: Vec<String>,
    pub executables: Vec<String>,
}

/// An alert is not wanted if all that is there fits; something besides `executables` must be there.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "Exception",
    extend(
        "anyOf" = [
            { "required": ["rules"], "properties": { "rules": { "minItems": 1 } } },
            { "required": ["images"], "properties": { "images": { "minItems": 1 } } },
            { "required": ["image_digests"], "properties": { "image_digests": { "minItems": 1 } } },
            { "required": ["containers"], "properties": { "containers": { "minItems": 1 } } },
            { "required": ["namespaces"], "properties": { "namespaces": { "minItems": 1 } } },
        ],
        "if" = { "required": ["executables"], "properties": { "executables": { "minItems": 1 } } },
        "then" = { "required": ["image_digests"], "properties": { "image_digests": { "minItems": 1 } } }
    )
)]
pub(super) struct Entry {
    /// Of a-z, 0-9, - and _, and no other exception's: the label of `observer_exceptions_total`.
    #[serde(deserialize_with = "named::name")]
    #[schemars(schema_with = "schema::name")]
    name: String,
    /// Why these alerts are not wanted, for whoever reads the file next.
    #[serde(deserialize_with = "reason")]
    #[schemars(schema_with = "schema::reason")]
    reason: String,
    /// The last day on which it applies, UTC.
    #[serde(deserialize_with = "date")]
    #[schemars(schema_with = "schema::date")]
    expires: Date,
    /// Rules by their ids, with `*` and `?`.
    #[serde(default, deserialize_with = "values::patterns")]
    #[schemars(schema_with = "schema::patterns")]
    rules: Vec<String>,
    /// The container's image, with `*` and `?`.
    #[serde(default, deserialize_with = "values::patterns")]
    #[schemars(schema_with = "schema::patterns")]
    images: Vec<String>,
    /// The digest of the container's image, exactly: `image_digest` of the alert.
    #[serde(default)]
    #[schemars(schema_with = "schema::digests")]
    image_digests: Vec<Digest>,
    /// The container's name, with `*` and `?`.
    #[serde(default, deserialize_with = "values::patterns")]
    #[schemars(schema_with = "schema::patterns")]
    containers: Vec<String>,
    /// The Kubernetes namespace of the container's pod, with `*` and `?`.
    #[serde(default, deserialize_with = "values::patterns")]
    #[schemars(schema_with = "schema::patterns")]
    namespaces: Vec<String>,
    /// The process's executable, exactly; only together with `image_digests`, because a path alone can be had in any
    /// container.
    #[serde(default)]
    #[schemars(schema_with = "schema::paths")]
    executables: Vec<Executable>,
}

impl<'de> Deserialize<'de> for ExceptionConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = Entry::deserialize(deserializer)?;
        let exception = ExceptionConfig {
            name: entry.name,
            reason: entry.reason,
            expires: entry.expires,
            rules: entry.rules,
            images: entry.images,
            image_digests: entry.image_digests.into_iter().map(|it| it.0).collect(),
            containers: entry.containers,
            namespaces: entry.namespaces,
            executables: entry.executables.into_iter().map(|it| it.0).collect(),
        };
        let name = &exception.name;
        if !exception.executables.is_empty() && exception.image_digests.is_empty() {
            // A path alone can be had in any container.
            return Err(D::Error::custom(format!(
                "the exception `{name}` names executables alone, expected image_digests with them"
            )));
        }
        let names_nothing = [
            &exception.rules,
            &exception.images,
            &exception.image_digests,
            &exception.containers,
            &exception.namespaces,
        ]
        .into_iter()
        .all(Vec::is_empty);
        if names_nothing {
            return Err(D::Error::custom(format!(
                "the exception `{name}` hides everything, expected rules, images, image_digests, containers or namespaces"
            )));
        }
        Ok(exception)
    }
}

/// The list, in which a name stands once.
pub(super) fn exceptions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<ExceptionConfig>, D::Error> {
    named::named_once(deserializer, MAX_EXCEPTIONS, "exception", |it: &ExceptionConfig| &it.name)
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.trim().is_empty() && text.len() <= MAX_REASON_BYTES {
        Ok(text)
    } else {
        let expected = format!("a reason of at most {MAX_REASON_BYTES} bytes");
        Err(D::Error::invalid_value(Unexpected::Str(&text), &&*expected))
    }
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    // Its parser would take a time of day and leave it out.
    let date = if text.len() == "2027-01-31".len() { text.parse().ok() } else { None };
    date.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a date, such as 2027-01-31"))
}

fn write_date<S: serde::Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

struct Digest(String);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let good = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
        });
        if good {
            Ok(Digest(text))
        } else {
            Err(D::Error::invalid_value(Unexpected::Str(&text), &"sha256: and 64 hexadecimal digits"))
        }
    }
}

struct Executable(String);

impl<'de> Deserialize<'de> for Executable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if Path::new(&text).is_absolute() {
            Ok(Executable(text))
        } else {
            Err(D::Error::invalid_value(Unexpected::Str(&text), &"an absolute path"))
        }
    }
}
