//! What a request is made of: its URL, its headers, labels.

use std::{collections::BTreeMap, path::PathBuf};

use http::Uri;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected},
};

use super::super::values;

pub fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
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

pub fn write_uri<S: serde::Serializer>(uri: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(uri)
}

/// Headers that are ours to set.
pub const OURS: &[&str] =
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

pub fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<HeaderName, HeaderValue>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, value)| (name.0, value.0)).collect())
}

pub fn header_files<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, PathBuf>, D::Error> {
    let map = BTreeMap::<HeaderName, values::AbsolutePath>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, value)| (name.0, value.0)).collect())
}

pub fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
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
