//! What an alert looks like to others. A format is a file here, with a golden file of the same alert as the others.

mod cef;
mod ecs;
mod ocsf;

use bytes::Bytes;
use jiff::Timestamp;

use super::worker::Outgoing;
use crate::config::Format;

const VENDOR: &str = "observer-security";
const PRODUCT: &str = "observer";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One line, without its end.
pub fn line(format: Format, outgoing: &Outgoing) -> Bytes {
    match format {
        Format::Native => outgoing.json.clone(),
        Format::Ocsf => ocsf::event(&outgoing.alert).to_string().into(),
        Format::Ecs => ecs::document(&outgoing.alert).to_string().into(),
        Format::Cef => cef::line(&outgoing.alert).into(),
    }
}

/// An alert's own time; that of now if it says none that can be read.
pub fn time(rfc3339: &str) -> Timestamp {
    rfc3339.parse().unwrap_or_else(|_| Timestamp::now())
}

/// A part that is left out if there is none.
fn put(
    object: &mut serde_json::Map<String, serde_json::Value>,
    name: &str,
    value: Option<serde_json::Value>,
) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
pub(crate) mod tests;
