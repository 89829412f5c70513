//! What alerts and events look like, against checked-in files: `golden/NAME.json` holds one as observer writes it
//! (wrapped for readers), `golden/NAME.txt` how a terminal shows it. After a change that is meant, run with
//! UPDATE_GOLDEN=1 and read the difference.

use std::{fs, path::PathBuf};

use observer::{
    docs::Document,
    model::{Alert, EventRecord},
    render::{self, Colours},
};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Names and contents of the files that begin so.
fn inputs(prefix: &str) -> Vec<(String, Value)> {
    let mut inputs: Vec<(String, Value)> = fs::read_dir(golden())
        .expect("the golden directory")
        .filter_map(|entry| {
            let path = entry.expect("its entries").path();
            let name = path.file_stem()?.to_str()?.to_owned();
            let json = path.extension()? == "json" && name.starts_with(prefix);
            json.then(|| {
                (name, serde_json::from_slice(&fs::read(&path).expect("a golden file")).expect("JSON"))
            })
        })
        .collect();
    inputs.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert!(inputs.len() > 5, "{prefix}: {} files", inputs.len());
    inputs
}

fn compare(file: &str, text: &str) {
    let path = golden().join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|it| it == "1") {
        fs::write(&path, text).expect("write the golden file");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{file} is not what it was; UPDATE_GOLDEN=1 takes the new one\n--- was\n{expected}--- is\n{text}"
    );
}

/// Nothing that a terminal would obey or hide, but line ends and, if there may be, colours.
fn assert_harmless(name: &str, text: &str, colours: bool) {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let sequence =
            after.strip_prefix('[').map(|it| it.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        rest = match (c, sequence) {
            ('\u{1b}', Some(end)) if colours && end.starts_with('m') => &end[1..],
            ('\n', _) => after,
            (c, _) => {
                let turns_or_hides =
                    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                assert!(!c.is_control() && !turns_or_hides, "{name}: {c:?} in {text:?}");
                after
            }
        };
    }
}

#[test]
fn alerts_are_shown_as_they_should_be() {
    for (name, json) in inputs("alert-") {
        let alert: Alert = serde_json::from_value(json).expect("an alert");
        let text = render::alert(&alert, Colours::OFF);
        assert_harmless(&name, &text, false);
        assert!(text.lines().count() <= 4 && text.ends_with('\n'), "{name}");
        compare(&format!("{name}.txt"), &text);

        let coloured = render::alert(&alert, Colours::ON);
        assert_harmless(&name, &coloured, true);
        if name == "alert-escape" {
            compare("alert-escape.ansi", &coloured);
        }
    }
}

#[test]
fn events_are_shown_as_they_should_be() {
    for (name, json) in inputs("event-") {
        let event: EventRecord = serde_json::from_value(json).expect("an event");
        let text = render::event(&event, Colours::OFF);
        assert_harmless(&name, &text, false);
        assert_eq!(text.matches('\n').count(), 1, "{name}");
        compare(&format!("{name}.txt"), &text);
        assert_harmless(&name, &render::event(&event, Colours::ON), true);
    }
}

/// Reading and writing one again changes nothing: nothing is invented, nothing is null.
#[test]
fn what_is_read_is_written_again() {
    for (name, json) in inputs("alert-") {
        let alert: Alert = serde_json::from_value(json.clone()).expect("an alert");
        assert_eq!(serde_json::to_value(&alert).expect("JSON"), json, "{name}");
    }
    for (name, json) in inputs("event-") {
        let event: EventRecord = serde_json::from_value(json.clone()).expect("an event");
        assert_eq!(serde_json::to_value(&event).expect("JSON"), json, "{name}");
    }
}

fn validator(document: Document) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&document.text()).expect("JSON");
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("no schema: {error}"));
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema")
}

#[test]
fn the_schemas_accept_what_observer_writes() {
    for (prefix, document) in [("alert-", Document::AlertSchema), ("event-", Document::EventSchema)] {
        let validator = validator(document);
        for (name, json) in inputs(prefix) {
            let errors: Vec<String> = validator.iter_errors(&json).map(|it| it.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
        }
    }
}

/// Puts `value` at `pointer`; without a value, takes away what is there.
fn changed(json: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut json = json.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let object = json.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => object.insert(key.to_owned(), value),
        None => object.remove(key),
    };
    json
}

#[test]
fn the_schemas_refuse_what_observer_would_never_write() {
    let input =
        |name: &str| inputs(&name[..6]).into_iter().find(|(it, _)| it == name).expect("a golden file").1;
    let alert = input("alert-escape");
    let event = input("event-setns");
    let alerts = validator(Document::AlertSchema);
    for (pointer, value) in [
        ("/schema", Some(json!("observer.alert/2"))),
        ("/severity", None),
        ("/severity", Some(json!("high"))),
        ("/severity", Some(json!("Critical"))),
        ("/attribution", Some(json!("guessed"))),
        ("/time", Some(json!("2026-01-02T03:04:05Z"))),
        ("/time", Some(json!("2026-13-02T03:04:05.123456789Z"))),
        ("/id", Some(json!("019b7cb0-8a23-41f9-9f0e-2b6c4d8e0f1a"))),
        ("/count", Some(json!(-1))),
        ("/count", Some(json!("1"))),
        ("/container", Some(Value::Null)),
        ("/container/name", Some(Value::Null)),
        ("/container/id", None),
        ("/process/args", Some(json!("nsenter -t 1"))),
        ("/process/pid", Some(json!("1234"))),
        ("/process/start_time", Some(json!(17))),
        ("/namespaces/changed", Some(json!(["mount"]))),
        ("/namespaces/actual/mount", Some(json!(4_026_531_841_u32))),
        ("/namespaces/actual/mnt", Some(json!(4_026_531_841_000_u64))),
        ("/evidence/lost", Some(json!({ "ring_full": "many" }))),
        ("/evidence/mover", Some(json!({ "comm": "sh" }))),
        ("/state", Some(json!("pending"))),
    ] {
        let wrong = changed(&alert, pointer, value);
        assert!(!alerts.is_valid(&wrong), "accepted: {pointer} = {:?}", wrong.pointer(pointer));
    }
    let events = validator(Document::EventSchema);
    for (pointer, value) in [
        ("/schema", Some(json!("observer.alert/1"))),
        ("/kind", Some(json!("open"))),
        ("/process", None),
        ("/namespaces/mount", Some(json!(1))),
        ("/result", Some(json!(0))),
        ("/entering", Some(json!("yes"))),
    ] {
        let wrong = changed(&event, pointer, value);
        assert!(!events.is_valid(&wrong), "accepted: {pointer} = {:?}", wrong.pointer(pointer));
    }
    assert!(!alerts.is_valid(&event) && !events.is_valid(&alert));
}
