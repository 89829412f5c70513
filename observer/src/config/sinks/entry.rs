//! How one entry of `sinks` is read: its `type` says which keys it may have.
//!
//! Where the `type` stands first, all after it is read by the type's own structure: an error has the line and the keys of what is
//! really there. (serde's tagged enumerations keep what they read in between, without lines.) Where it comes later, as in files
//! whose keys were sorted by who wrote them (Helm does), the keys are read as what they are in every sink that has them; one that
//! this sink does not have is found at the end, and has the entry's line.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use http::Uri;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{
    super::values, Body, Facility, Format, OtlpProtocol, SinkConfig, SinkFilter, SyslogAddress, Tls,
    header_files, headers, labels, name, url, write_uri,
};

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    File,
    Syslog,
    Webhook,
    Alertmanager,
    Otlp,
}

impl Type {
    fn read<'de, D: Deserializer<'de>>(self, rest: D) -> Result<SinkConfig, D::Error> {
        match self {
            Type::File => Deserialize::deserialize(rest).map(SinkConfig::File),
            Type::Syslog => Deserialize::deserialize(rest).map(SinkConfig::Syslog),
            Type::Webhook => Deserialize::deserialize(rest).map(SinkConfig::Webhook),
            Type::Alertmanager => Deserialize::deserialize(rest).map(SinkConfig::Alertmanager),
            Type::Otlp => Deserialize::deserialize(rest).map(SinkConfig::Otlp),
        }
    }
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
                let Some(first) = map.next_key::<String>()? else {
                    return Err(A::Error::missing_field("type"));
                };
                if first == "type" {
                    let kind: Type = map.next_value()?;
                    return kind.read(MapAccessDeserializer::new(map));
                }
                let mut there = Vec::new();
                let keys = Keys { first: Some(first), rest: map, there: &mut there };
                let read = AnySink::deserialize(MapAccessDeserializer::new(keys))?;
                read.of_its_type(&there)
            }
        }
        deserializer.deserialize_map(Entry)
    }
}

/// The keys of all sinks, with what is read of them in each sink that has them. What is not there has any value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnySink {
    #[serde(rename = "type")]
    kind: Type,
    #[serde(deserialize_with = "name")]
    name: String,
    #[serde(default)]
    filter: SinkFilter,
    #[serde(default)]
    format: Format,
    #[serde(default, deserialize_with = "values::absolute_path")]
    path: PathBuf,
    #[serde(default)]
    rotate_bytes: u64,
    #[serde(default)]
    rotate_hours: u32,
    #[serde(default, deserialize_with = "values::keep")]
    keep: u32,
    #[serde(default, deserialize_with = "some_address")]
    address: Option<SyslogAddress>,
    #[serde(default)]
    facility: Facility,
    #[serde(default, serialize_with = "write_uri", deserialize_with = "url")]
    url: Uri,
    #[serde(default)]
    body: Body,
    #[serde(default, deserialize_with = "values::batch")]
    batch: u32,
    #[serde(default)]
    protocol: OtlpProtocol,
    #[serde(default)]
    gzip: bool,
    #[serde(default, deserialize_with = "labels")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "headers")]
    headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "header_files")]
    header_files: BTreeMap<String, PathBuf>,
    #[serde(default)]
    tls: Tls,
    #[serde(default, deserialize_with = "values::timeout_seconds")]
    timeout_seconds: u64,
}

/// A value that is there is no null.
fn some_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SyslogAddress>, D::Error> {
    SyslogAddress::deserialize(deserializer).map(Some)
}

impl AnySink {
    /// Of the keys that are `there`, which have good values.
    fn of_its_type<E: Error>(&self, there: &[String]) -> Result<SinkConfig, E> {
        let mut keys = serde_json::to_value(self).map_err(E::custom)?;
        if let Value::Object(keys) = &mut keys {
            keys.retain(|key, _| key != "type" && there.iter().any(|it| it == key));
        }
        self.kind.read(keys).map_err(|error| {
            let words = error.to_string();
            E::custom(match (words.strip_prefix("unknown field"), words.strip_prefix("missing field ")) {
                (Some(rest), _) => format!("unknown key{rest}"),
                (_, Some(key)) => format!("the key {key} is missing"),
                _ => words,
            })
        })
    }
}

/// The rest of an entry behind its first key, which was looked at; keeps which keys there are.
struct Keys<'a, A> {
    first: Option<String>,
    rest: A,
    there: &'a mut Vec<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Keys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let key = Key { seed, there: self.there };
        match self.first.take() {
            Some(first) => key.deserialize(first.into_deserializer()).map(Some),
            None => self.rest.next_key_seed(key),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.rest.next_value_seed(seed)
    }
}

/// Looks at a key in passing, inside the reader's own call, so that what is wrong with it has its line.
struct Key<'a, K> {
    seed: K,
    there: &'a mut Vec<String>,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        let key = String::deserialize(deserializer)?;
        self.there.push(key.clone());
        self.seed.deserialize(key.into_deserializer())
    }
}
