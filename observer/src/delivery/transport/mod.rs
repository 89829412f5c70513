//! The ways out.

mod alertmanager;
mod file;
mod http;
mod otlp;
mod syslog;
mod tls;
mod webhook;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::worker::Outgoing;
use crate::config::SinkConfig;

/// Why something was not delivered.
#[derive(Debug)]
pub enum Failure {
    /// It may go well later, at the earliest after the time that the other side has named.
    Retry { why: String, after: Option<Duration> },
    /// It does not take it from us, or not there: credentials, rights or an address that can be mended.
    Denied {
        why: String,
        /// It may be about what is sent after all: what stands before a receiver (a web application firewall) answers so, too.
        perhaps: bool,
    },
    /// The other side will never take it.
    Rejected { why: String },
    /// No message of this kind can hold it.
    TooLarge { why: String },
}

impl Failure {
    pub fn retry(why: impl ToString) -> Self {
        Failure::Retry { why: why.to_string(), after: None }
    }
}

/// What the other side refuses for good of something that it has taken otherwise. It does not say which of it that was, and is not
/// to be sent it again.
#[derive(Debug)]
pub struct Refused {
    pub count: u64,
    pub why: String,
}

/// What a worker sends through.
pub enum Transport {
    File(file::File),
    Syslog(syslog::Syslog),
    Webhook(webhook::Webhook),
    Alertmanager(alertmanager::Alertmanager),
    Otlp(otlp::Otlp),
}

impl Transport {
    /// Opens and connects nothing yet.
    pub fn new(config: &SinkConfig, node: &Arc<str>, reopen: &Arc<AtomicU64>) -> Self {
        match config {
            SinkConfig::File(config) => Transport::File(file::File::new(config, reopen)),
            SinkConfig::Webhook(config) => Transport::Webhook(webhook::Webhook::new(config)),
            SinkConfig::Syslog(config) => Transport::Syslog(syslog::Syslog::new(config, node)),
            SinkConfig::Alertmanager(config) => {
                Transport::Alertmanager(alertmanager::Alertmanager::new(config))
            }
            SinkConfig::Otlp(config) => Transport::Otlp(otlp::Otlp::new(config, node)),
        }
    }

    /// All of `part`, or an error; then some of it may have arrived, and comes again.
    pub async fn send(&mut self, part: &[Outgoing]) -> Result<Option<Refused>, Failure> {
        match self {
            Transport::File(it) => it.send(part).await?,
            Transport::Webhook(it) => it.send(part).await?,
            Transport::Syslog(it) => it.send(part).await?,
            Transport::Alertmanager(it) => it.send(part).await?,
            Transport::Otlp(it) => return it.send(part).await,
        }
        Ok(None)
    }
}
