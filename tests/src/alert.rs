//! An alert as a test looks at it: one JSON line, and when it came.

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone)]
pub struct Alert {
    pub line: String,
    pub json: Value,
    pub received: Instant,
    pub received_at: SystemTime,
}

impl Alert {
    /// A pointer into the alert, "" where it is absent or no string.
    pub fn text(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.json.pointer(pointer).and_then(Value::as_u64)
    }

    pub fn rule(&self) -> &str {
        self.text("/rule")
    }

    pub fn severity(&self) -> &str {
        self.text("/severity")
    }

    pub fn container(&self) -> Option<&str> {
        self.json.pointer("/container/id").and_then(Value::as_str)
    }

    /// The other container of a join, as the rule saw it: an id, or an object with one.
    pub fn target_container(&self) -> Option<String> {
        let target = self.json.pointer("/evidence/target_container")?;
        target.as_str().or_else(|| target.get("id")?.as_str()).map(str::to_owned)
    }

    pub fn pid(&self) -> Option<u32> {
        self.number("/process/pid").and_then(|pid| pid.try_into().ok())
    }

    pub fn tid(&self) -> Option<u32> {
        self.number("/process/tid").and_then(|tid| tid.try_into().ok())
    }

    /// The ancestors' pids, the parent first.
    pub fn ancestors(&self) -> Vec<u32> {
        let ancestors = self.json.pointer("/process/ancestors").and_then(Value::as_array);
        let pids = ancestors.into_iter().flatten().filter_map(|a| a.get("pid").unwrap_or(a).as_u64());
        pids.filter_map(|pid| pid.try_into().ok()).collect()
    }

    fn strings(&self, pointer: &str) -> Vec<&str> {
        let list = self.json.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub fn changed(&self) -> Vec<&str> {
        self.strings("/namespaces/changed")
    }

    pub fn host(&self) -> Vec<&str> {
        self.strings("/namespaces/host")
    }

    pub fn args(&self) -> Vec<&str> {
        self.strings("/process/args")
    }

    /// One of the two tuples, "expected" or "actual".
    pub fn tuple(&self, which: &str) -> BTreeMap<&str, u64> {
        let tuple = self.json.pointer(&format!("/namespaces/{which}")).and_then(Value::as_object);
        tuple
            .into_iter()
            .flatten()
            .filter_map(|(name, inode)| Some((name.as_str(), inode.as_u64()?)))
            .collect()
    }

    /// An escape of the same thread that another alert tells as well, with more joins that followed.
    pub fn is_part_of(&self, whole: &Alert) -> bool {
        let who = |alert: &Alert| (alert.pid(), alert.tid(), alert.container().map(str::to_owned));
        let (changed, all) = (self.changed(), whole.changed());
        (self.rule(), whole.rule()) == ("namespace.escape", "namespace.escape")
            && who(self) == who(whole)
            && changed.len() < all.len()
            && changed.iter().all(|kind| all.contains(kind))
    }

    pub fn above_info(&self) -> bool {
        self.severity() != "info"
    }

    /// The event's own time.
    pub fn time(&self) -> Option<SystemTime> {
        rfc3339(self.text("/time"))
    }

    /// From the event's own time to the line's arrival here.
    pub fn latency(&self) -> Duration {
        let event = self.time().expect("the alert's time");
        self.received_at.duration_since(event).unwrap_or_default()
    }

    /// A short line for people.
    pub fn summary(&self) -> String {
        format!(
            "{} {} container={} pid={} comm={:?} changed={:?} evidence={}",
            self.severity(),
            self.rule(),
            self.container().unwrap_or("-"),
            self.pid().map_or("-".to_owned(), |pid| pid.to_string()),
            self.text("/process/comm"),
            self.changed(),
            self.json.get("evidence").map(Value::to_string).unwrap_or_default(),
        )
    }
}

/// `2026-01-02T03:04:05.123456789Z`, and nothing looser.
pub fn rfc3339(text: &str) -> Option<SystemTime> {
    let shape = "dddd-dd-ddTdd:dd:dd.dddddddddZ";
    let fits = |(byte, shape): (u8, u8)| if shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    if text.len() != shape.len() || !text.bytes().zip(shape.bytes()).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days since 1970 in the proleptic Gregorian calendar, years counted from March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 719_469;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(UNIX_EPOCH + Duration::new(seconds.try_into().ok()?, number(20, 29)?.try_into().ok()?))
}

/// What must hold for every alert line, whatever it is about.
pub fn check_shape(line: &str, json: &Value) -> Result<(), String> {
    if let Some(bad) = line.bytes().find(|byte| *byte < 0x20) {
        return Err(format!("a raw control character {bad:#04x}"));
    }
    let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let wrong = |what: &str| Err(format!("{what} is missing or wrong"));
    if text("/schema") != "observer.alert/1" {
        return wrong("schema");
    }
    if !["info", "notice", "warning", "critical"].contains(&text("/severity")) {
        return wrong("severity");
    }
    if rfc3339(text("/time")).is_none() {
        return wrong("time");
    }
    for pointer in ["/node", "/rule", "/title", "/message"] {
        if text(pointer).is_empty() {
            return wrong(pointer);
        }
    }
    for pointer in ["/id", "/incident"] {
        if !is_uuid_v7(text(pointer)) {
            return wrong(pointer);
        }
    }
    // The id's first 48 bits are the event's own time in milliseconds.
    let millis = u64::from_str_radix(&text("/id").replace('-', "")[..12], 16).unwrap_or_default();
    let event =
        rfc3339(text("/time")).and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    if u128::from(millis) != event.as_millis() {
        return Err(format!("the id's time {millis} is not the event's {}", event.as_millis()));
    }
    if !["", "exact", "late"].contains(&text("/attribution")) {
        return wrong("attribution");
    }
    if let Some(pointer) = find_null(json, String::new()) {
        return Err(format!("{pointer} is null: absent parts are left out"));
    }
    for pointer in ["/namespaces/changed", "/namespaces/host"] {
        let list = json.pointer(pointer).and_then(Value::as_array);
        if list.is_some_and(|list| !list.is_sorted_by_key(|v| v.as_str().unwrap_or_default().to_owned())) {
            return Err(format!("{pointer} is not sorted"));
        }
    }
    if json.pointer("/process").is_some() && json.pointer("/process/pid").and_then(Value::as_u64).is_none() {
        return wrong("process.pid");
    }
    if let Some(args) = json.pointer("/process/args")
        && !args.as_array().is_some_and(|args| args.iter().all(Value::is_string))
    {
        return wrong("process.args");
    }
    Ok(())
}

fn is_uuid_v7(text: &str) -> bool {
    let shape = "xxxxxxxx-xxxx-7xxx-vxxx-xxxxxxxxxxxx";
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            b'v' => b"89ab".contains(&byte),
            _ => byte == shape,
        })
}

fn find_null(json: &Value, at: String) -> Option<String> {
    match json {
        Value::Null => Some(at),
        Value::Array(list) => list.iter().enumerate().find_map(|(i, v)| find_null(v, format!("{at}/{i}"))),
        Value::Object(map) => map.iter().find_map(|(key, v)| find_null(v, format!("{at}/{key}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        serde_json::json!({
            "schema": "observer.alert/1", "id": "018df4dc-5180-7abc-8def-0123456789ab",
            "incident": "018df4dc-5180-7abc-8def-0123456789ab", "time": "2024-02-29T12:34:56.000000789Z",
            "node": "n", "rule": "namespace.escape", "severity": "critical", "title": "t", "message": "m",
            "container": {"id": "c"}, "evidence": {"target_container": {"id": "other"}}, "attribution": "exact",
            "process": {"pid": 7, "tid": 8, "args": ["a"], "ancestors": [{"pid": 5}, {"pid": 1}]},
            "namespaces": {"changed": ["mnt", "net"], "host": ["net"], "actual": {"mnt": 4026531832u64}},
        })
    }

    #[test]
    fn accepts_an_alert_and_refuses_broken_ones() {
        let check = |json: &Value| check_shape(&json.to_string(), json);
        check(&sample()).expect("a sound alert");
        let broken: [(&str, Value); 9] = [
            ("/schema", "observer.alert/2".into()),
            ("/severity", "high".into()),
            ("/time", "2024-02-29T12:34:56Z".into()),
            ("/time", "2024-02-29T12:34:57.000000789Z".into()),
            ("/node", "".into()),
            ("/incident", "x".into()),
            ("/namespaces/changed", serde_json::json!(["net", "mnt"])),
            ("/process/args", "a b".into()),
            ("/container/id", Value::Null),
        ];
        for (pointer, value) in broken {
            let mut json = sample();
            *json.pointer_mut(pointer).expect("the field") = value;
            assert!(check(&json).is_err(), "{pointer}: {json}");
        }
    }

    #[test]
    fn reads_the_parts() {
        let json = sample();
        let now = (Instant::now(), SystemTime::now());
        let alert = Alert { line: json.to_string(), json, received: now.0, received_at: now.1 };
        assert_eq!((alert.pid(), alert.tid(), alert.ancestors()), (Some(7), Some(8), vec![5, 1]));
        assert_eq!((alert.changed(), alert.host()), (vec!["mnt", "net"], vec!["net"]));
        assert_eq!(alert.target_container().as_deref(), Some("other"));
        assert_eq!(alert.tuple("actual").get("mnt"), Some(&4_026_531_832));
        let mut more = alert.clone();
        more.json["namespaces"]["changed"] = serde_json::json!(["ipc", "mnt", "net"]);
        assert!(alert.is_part_of(&more) && !more.is_part_of(&alert) && !alert.is_part_of(&alert));
        more.json["process"]["pid"] = 9.into();
        assert!(!alert.is_part_of(&more));
        assert!(alert.latency() > Duration::from_secs(86_400));
    }

    #[test]
    fn reads_times() {
        let time = rfc3339("2024-02-29T12:34:56.000000789Z").expect("a time");
        assert_eq!(time.duration_since(UNIX_EPOCH).expect("after 1970"), Duration::new(1_709_210_096, 789));
        assert_eq!(rfc3339("1970-01-01T00:00:00.000000000Z"), Some(UNIX_EPOCH));
        assert_eq!(rfc3339("2024-02-29T12:34:56Z"), None);
        assert_eq!(rfc3339("2024-02-29T12:34:56.000000789+00:00"), None);
    }

    #[test]
    fn knows_a_uuid_v7() {
        assert!(is_uuid_v7("018f2a3b-4c5d-7e6f-8a9b-0c1d2e3f4a5b"));
        assert!(!is_uuid_v7("018f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b"));
        assert!(!is_uuid_v7("018f2a3b-4c5d-7e6f-ca9b-0c1d2e3f4a5b"));
    }

    #[test]
    fn finds_a_null_deep_down() {
        let json = serde_json::json!({"a": [1, {"b": null}]});
        assert_eq!(find_null(&json, String::new()).as_deref(), Some("/a/1/b"));
    }
}
