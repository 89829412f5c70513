//! JSON Schemas of what observer writes and of the configuration that it reads, made from their types.

use observer_common::{ALL_KINDS, NAMESPACE_NAMES};
use schemars::Schema;
use serde_json::{Value, json};

use crate::model::{ALERT_SCHEMA, Alert, EVENT_SCHEMA, EventRecord};

pub fn alert() -> String {
    let mut schema = schemars::schema_for!(Alert);
    narrow(&mut schema, "/properties/schema", &json!({ "const": ALERT_SCHEMA }));
    for id in ["/properties/id", "/properties/incident"] {
        narrow(&mut schema, id, &json!({ "format": "uuid", "pattern": UUID_V7 }));
    }
    narrow(&mut schema, "/properties/rule", &json!({ "pattern": "^[a-z_]+(\\.[a-z_]+)+$" }));
    for set in ["expected", "actual"] {
        narrow(&mut schema, &format!("/$defs/NamespaceView/properties/{set}"), &namespace_set());
    }
    for list in ["changed", "host"] {
        let items = format!("/$defs/NamespaceView/properties/{list}/items");
        narrow(&mut schema, &items, &json!({ "enum": NAMESPACE_NAMES }));
    }
    finish(schema, ALERT_SCHEMA)
}

pub fn event() -> String {
    let mut schema = schemars::schema_for!(EventRecord);
    narrow(&mut schema, "/properties/schema", &json!({ "const": EVENT_SCHEMA }));
    narrow(&mut schema, "/properties/kind", &json!({ "enum": ALL_KINDS.map(|kind| kind.name()) }));
    for set in ["namespaces", "namespaces_before"] {
        narrow(&mut schema, &format!("/properties/{set}"), &namespace_set());
    }
    finish(schema, EVENT_SCHEMA)
}

/// Unlike in what observer writes, a value may be null here: that of a key with nothing behind it.
pub fn config() -> String {
    let mut schema = crate::config::schema();
    one_line(&mut schema);
    text(schema)
}

const UUID_V7: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";
const RFC3339_NS: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{9}Z$";

fn namespace_set() -> Value {
    json!({ "propertyNames": { "enum": NAMESPACE_NAMES } })
}

/// What both have.
fn finish(mut schema: Schema, name: &str) -> String {
    tighten(&mut schema);
    one_line(&mut schema);
    let time = json!({ "format": "date-time", "pattern": RFC3339_NS });
    narrow(&mut schema, "/properties/time", &time);
    narrow(&mut schema, "/$defs/ProcessRef/properties/start_time", &time);
    schema.insert("title".to_owned(), name.into());
    schema.insert("$id".to_owned(), format!("urn:{}", name.replace(['.', '/'], ":")).into());
    text(schema)
}

fn text(schema: Schema) -> String {
    format!("{:#}\n", Value::from(schema))
}

/// Comments of the sources are broken into lines.
fn one_line(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut one_line, schema);
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

/// Adds what the format promises and a Rust `String` does not say. A place that is not there is left alone: the test
/// below finds it.
fn narrow(schema: &mut Schema, pointer: &str, more: &Value) {
    if let (Some(Value::Object(place)), Some(more)) = (schema.pointer_mut(pointer), more.as_object()) {
        place.extend(more.clone());
    }
}

/// Absent parts are left out, and nothing is ever null: schemars cannot know that of an `Option`. Nor do validators
/// look at `uint32`.
fn tighten(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut tighten, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if object.get("format").is_some_and(|it| it == "uint32") {
        object.insert("maximum".to_owned(), u32::MAX.into());
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|it| it != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|it| *it != json!({ "type": "null" }));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each narrowing found its place.
    #[test]
    fn everything_that_is_narrowed_is_there() {
        let count = |text: &str, word: &str| text.matches(word).count();
        let (alert, event) = (alert(), event());
        assert_eq!(count(&alert, "\"const\": \"observer.alert/1\""), 1);
        assert_eq!(count(&alert, "\"format\": \"uuid\""), 2);
        assert_eq!(count(&alert, "\"propertyNames\""), 2);
        assert_eq!(count(&alert, "\"pid_for_children\""), 4);
        assert_eq!(count(&event, "\"const\": \"observer.event/1\""), 1);
        assert_eq!(count(&event, "\"propertyNames\""), 2);
        assert_eq!(count(&event, "\"pivot_root\""), 1);
        for text in [&alert, &event] {
            assert_eq!(count(text, "\"format\": \"date-time\""), 2);
            assert_eq!(count(text, "https://json-schema.org/draft/2020-12/schema"), 1);
            assert_eq!(count(text, "\"null\""), 0);
            assert_eq!(count(text, "\"anyOf\""), 0);
        }
    }
}
