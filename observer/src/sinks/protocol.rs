//! What is said over the agent's socket: lines of JSON.
//!
//! The client sends one line, [`Request`]. To `{"ask":"membership"}` the agent answers `{"membership":{...}}` and hangs up, to
//! `{"ask":"observed"}` `{"observed":{...}}`. To a subscription it answers `{"subscribed":"alerts"}`, then a line for each thing:
//! `{"alert":{...}}`, `{"event":{...}}`, `{"missed":3}` where the client was too slow for three of them; or
//! `{"error":"..."}`, and hangs up. A client has to pass over what it does not know.

use serde::{Deserialize, Serialize};

use super::Filter;
use crate::{
    inventory::Membership,
    model::{Alert, EventRecord, Observed},
};

/// A request is no longer than this.
pub const MAX_REQUEST: usize = 4096;

/// Which of the two a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Want {
    Alerts,
    Events,
}

/// The client's one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Request {
    Ask(Ask),
    Subscribe(Subscribe),
}

impl Request {
    /// What a line asks for. (Not serde's `untagged`, whose errors do not say what is wrong.)
    pub fn parse(line: &[u8]) -> serde_json::Result<Request> {
        let value: serde_json::Value = serde_json::from_slice(line)?;
        if value.get("ask").is_some() {
            serde_json::from_value(value).map(Request::Ask)
        } else {
            serde_json::from_value(value).map(Request::Subscribe)
        }
    }
}

/// A question with one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub ask: Question,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// Which containers there are, and which process is whose.
    Membership,
    /// What containers were seen to call, to use and to be refused.
    Observed,
}

/// What a reader wants to be sent from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    pub subscribe: Want,
    #[serde(default)]
    pub filter: Filter,
    /// The last hundred alerts first.
    #[serde(default)]
    pub recent: bool,
}

/// A line of the agent's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<'a> {
    Subscribed(Want),
    Alert(&'a Alert),
    Event(&'a EventRecord),
    Missed(u64),
    Membership(&'a Membership),
    Observed(&'a Observed),
    Error(&'a str),
}

impl Line<'_> {
    /// Adds the line with its end.
    pub fn write_to(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        match serde_json::to_writer(&mut *buffer, self) {
            Ok(()) => buffer.push(b'\n'),
            // Cannot happen with these types; half a line would be worse than none.
            Err(_) => buffer.truncate(start),
        }
    }
}

/// The same line as a client reads it: what it holds is passed on as it came.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Received<'a> {
    #[serde(borrow)]
    pub alert: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    pub event: Option<&'a serde_json::value::RawValue>,
    pub missed: Option<u64>,
    #[serde(borrow)]
    pub membership: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    pub observed: Option<&'a serde_json::value::RawValue>,
    pub error: Option<String>,
}

#[cfg(test)]
pub(crate) mod sample {
    //! An alert and an event for the tests of this stage.

    use std::sync::Arc;

    use crate::model::{
        ALERT_SCHEMA, Alert, Attribution, ContainerRef, Detail, EVENT_SCHEMA, EventRecord, Evidence,
        ProcessRef, Severity,
    };

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    fn container() -> ContainerRef {
        ContainerRef {
            id: "3f2a9c1b0d4e".to_owned(),
            name: Some("web".to_owned()),
            image: None,
            image_digest: None,
            runtime: "docker".to_owned(),
            cgroup_id: None,
            cgroup_path: None,
            pod: None,
            metadata: None,
        }
    }

    pub fn alert(message: &str) -> Arc<Alert> {
        Arc::new(Alert {
            schema: ALERT_SCHEMA.to_owned(),
            id: "0194263c-6e08-7000-8000-000000000001".to_owned(),
            incident: "0194263c-6e08-7000-8000-000000000001".to_owned(),
            state: None,
            time: TIME.to_owned(),
            node: "n1".to_owned(),
            rule: "namespace.escape".to_owned(),
            severity: Severity::Critical,
            title: "Container escape".to_owned(),
            message: message.to_owned(),
            mitre: Vec::new(),
            container: Some(container()),
            process: None,
            namespaces: None,
            evidence: Evidence::default(),
            attribution: Attribution::Exact,
            events_lost_before: 0,
            count: 1,
        })
    }

    pub fn event(kind: &str) -> Arc<EventRecord> {
        Arc::new(EventRecord {
            schema: EVENT_SCHEMA.to_owned(),
            time: TIME.to_owned(),
            node: "n1".to_owned(),
            kind: kind.to_owned(),
            container: Some(container()),
            process: ProcessRef {
                pid: 7,
                tid: 7,
                start_time: TIME.to_owned(),
                comm: "sh".to_owned(),
                exe: None,
                args: Vec::new(),
                uid: 0,
                gid: 0,
                ancestors: Vec::new(),
            },
            cpu: 0,
            namespaces: Default::default(),
            namespaces_before: Default::default(),
            entering: false,
            detail: Detail::default(),
        })
    }
}
