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
    pub async fn send(&mut self, part: &[Outgoing]) -> Result<(), Failure> {
        match self {
            Transport::File(it) => it.send(part).await,
            Transport::Webhook(it) => it.send(part).await,
            Transport::Syslog(it) => it.send(part).await,
            Transport::Alertmanager(it) => it.send(part).await,
            Transport::Otlp(it) => it.send(part).await,
        }
    }
}
