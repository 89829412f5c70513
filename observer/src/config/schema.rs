//! The configuration's JSON Schema, for editors and for whoever writes the file by a program: what can be said of each
//! value without reading the file as the agent does. Unlike the agent it tells text from numbers, `true` and `false`: it refuses
//! `sweep_seconds: "5"` and `node: 5`. Otherwise it refuses nothing that the agent takes; tests hold the two together.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{
    Config,
    named::{MAX_NAME_BYTES, RESERVED},
    sinks::OURS,
    values::{MAX_PATTERN_BYTES, MAX_SOCKET_PATH_BYTES, RING_BYTES, Switch, Threshold},
};
use crate::kernel::PRETEND_PREFIXES;

/// JSON Schema, draft 2020-12.
pub fn schema() -> Schema {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".to_owned(), "observer's configuration".into());
    schema.insert("$id".to_owned(), "urn:observer:config".into());
    schema
}

const ABSOLUTE: &str = "^/";
/// What is not only white space.
const SOMETHING: &str = r"\S";

pub fn node(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "pattern": SOMETHING })
}

/// Which numbers and groups make an address is left to the agent.
pub fn listen(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string", "pattern": r"^(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+(%\d+)?\]):\d{1,5}$" },
            { "enum": ["off", false, null] },
        ],
        "examples": ["127.0.0.1:9736", "[::1]:9736", "off"],
    })
}

pub fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": ABSOLUTE })
}

pub fn optional_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "pattern": ABSOLUTE })
}

pub fn sockets(_: &mut SchemaGenerator) -> Schema {
    let longest = MAX_SOCKET_PATH_BYTES + "unix://".len();
    json_schema!({
        "type": ["array", "null"],
        "items": { "type": "string", "pattern": "^(unix://)?/", "maxLength": longest },
    })
}

pub fn ring_bytes(_: &mut SchemaGenerator) -> Schema {
    let powers = (0..u64::BITS).map(|bit| 1_u64 << bit);
    let sizes: Vec<u64> = powers.filter(|it| (RING_BYTES.min..=RING_BYTES.max).contains(it)).collect();
    json_schema!({ "enum": sizes })
}

pub fn patterns(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "minLength": 1, "maxLength": MAX_PATTERN_BYTES } })
}

pub fn pretended(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("^({})", PRETEND_PREFIXES.join("|"));
    json_schema!({ "type": "array", "items": { "type": "string", "pattern": pattern } })
}

pub fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": format!("^[a-z0-9_-]{{1,{MAX_NAME_BYTES}}}$"),
        "not": { "enum": RESERVED },
    })
}

pub fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/@]+(/|$|\\?)" })
}

/// In place of `oneOf`, of which a validator can only say that none fits, and why each of them does not.
pub fn by_type(schema: &mut Schema) {
    let Some(Value::Array(variants)) = schema.remove("oneOf") else { return };
    let of = |variant: &Value| variant["properties"]["type"]["const"].clone();
    let types: Vec<Value> = variants.iter().map(of).collect();
    let rules: Vec<Value> = variants
        .into_iter()
        .map(|variant| {
            let condition =
                json!({ "properties": { "type": { "const": of(&variant) } }, "required": ["type"] });
            json!({ "if": condition, "then": variant })
        })
        .collect();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("required".to_owned(), json!(["type"]));
    let kind = json!({ "type": "string", "enum": types, "description": "What kind of sink it is: which keys it has." });
    schema.insert("properties".to_owned(), json!({ "type": kind }));
    schema.insert("allOf".to_owned(), rules.into());
}

pub fn syslog_address(_: &mut SchemaGenerator) -> Schema {
    let place = r"((udp|tcp|tls)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}|unix:///.*)";
    json_schema!({
        "type": "string",
        "pattern": format!("^{place}$"),
        "examples": ["udp://HOST:PORT", "tcp://HOST:PORT", "tls://HOST:PORT", "unix:///dev/log"],
    })
}

pub fn headers(_: &mut SchemaGenerator) -> Schema {
    headers_with(&json!({ "type": "string" }))
}

pub fn header_files(_: &mut SchemaGenerator) -> Schema {
    headers_with(&json!({ "type": "string", "pattern": ABSOLUTE }))
}

pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "patternProperties": { "^[A-Za-z_][A-Za-z0-9_]*$": { "type": "string" } },
        "additionalProperties": false,
    })
}

/// Names by RFC 9110, section 5.1, without those that are ours to set, however they are written. (Not by `propertyNames`: helm's
/// validator then names a wrong place.)
fn headers_with(values: &Value) -> Schema {
    let any_case =
        |name: &&str| -> String {
            name.chars()
                .map(|c| {
                    if c.is_ascii_lowercase() { format!("[{}{c}]", c.to_ascii_uppercase()) } else { c.into() }
                })
                .collect()
        };
    let ours: Vec<String> = OURS.iter().map(any_case).collect();
    let (name, ours) = ("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", format!("^({})$", ours.join("|")));
    let properties = json!({ name: values, ours: false });
    json_schema!({ "type": "object", "patternProperties": properties, "additionalProperties": false })
}

pub fn reason(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": SOMETHING, "maxLength": super::exceptions::MAX_REASON_BYTES })
}

pub fn date(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date", "examples": ["2027-01-31"] })
}

pub fn digests(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" } })
}

pub fn paths(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "pattern": ABSOLUTE } })
}

impl<T: Threshold> JsonSchema for Switch<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OffOrUpTo{}", T::MAX).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": T::MAX }, { "enum": ["off", false] }],
        })
    }
}
