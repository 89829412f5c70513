//! One sink at work: in order, again and again until the other side has it.

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    backoff::Backoff,
    filter::Filter,
    queue::Queue,
    transport::{Failure, Transport},
};
use crate::{
    config::SinkConfig,
    model::Alert,
    telemetry::{
        log,
        metrics::{DeliveryMetrics, DropReason},
    },
};

/// Read from the store in one go.
const READ_BYTES: u64 = 1 << 20;
const READ_ALERTS: usize = 100;

/// How long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Run,
    /// Until nothing is left, or the first failure.
    Finish,
    /// At once.
    Stop,
}

/// An alert on its way.
#[derive(Debug)]
pub struct Outgoing {
    pub alert: Alert,
    /// The same, as it is stored.
    pub json: Bytes,
}

pub struct Worker {
    name: String,
    filter: Filter,
    transport: Transport,
    batch: usize,
    queue: Queue,
    metrics: DeliveryMetrics,
    phase: watch::Receiver<Phase>,
    backoff: Backoff,
    /// Said once when it begins, and once when it is over.
    failing: bool,
}

impl Worker {
    pub fn new(
        config: &SinkConfig,
        transport: Transport,
        queue: Queue,
        metrics: DeliveryMetrics,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let batch = match config {
            SinkConfig::Webhook(webhook) => webhook.batch as usize,
            _ => READ_ALERTS,
        };
        Worker {
            name: config.name().to_owned(),
            filter: Filter::new(config.filter()),
            transport,
            batch,
            queue,
            metrics,
            phase,
            backoff: Backoff::default(),
            failing: false,
        }
    }

    pub async fn run(mut self) {
        let mut last = self.queue.last();
        loop {
            let phase = *self.phase.borrow_and_update();
            if phase == Phase::Stop {
                return;
            }
            last.borrow_and_update();
            let batch = self.queue.next(&self.name, self.batch, READ_BYTES);
            if let Some(error) = &batch.error {
                let failure = Failure::Retry { why: error.to_string(), after: None };
                if !self.failed(failure).await {
                    return;
                }
                continue;
            }
            if batch.records.is_empty() {
                if phase == Phase::Finish {
                    return;
                }
                tokio::select! {
                    _ = last.changed() => {}
                    changed = self.phase.changed() => if changed.is_err() { return },
                }
                continue;
            }
            let mut outgoing = Vec::with_capacity(batch.records.len());
            for record in &batch.records {
                match serde_json::from_slice::<Alert>(&record.json) {
                    Ok(alert) if self.filter.passes(&alert) => {
                        outgoing.push(Outgoing { alert, json: record.json.clone() });
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.metrics.sink.dropped(DropReason::Unreadable, 1);
                        log::error!("a stored alert cannot be read", sink = self.name, error);
                    }
                }
            }
            if !self.deliver(&outgoing).await {
                return;
            }
            self.queue.taken(&self.name, &batch);
        }
    }

    /// False if it is to end, with something left.
    async fn deliver(&mut self, outgoing: &[Outgoing]) -> bool {
        // Parts of it, last first: a batch that is refused is tried in halves, so that one alert that the other side does
        // not like takes no other along.
        let mut parts = vec![outgoing];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let result = {
                let mut phase = self.phase.clone();
                tokio::select! {
                    result = self.transport.send(part) => result,
                    _ = phase.wait_for(|phase| *phase == Phase::Stop) => return false,
                }
            };
            match result {
                Ok(()) => {
                    self.metrics.sink.written(part.len() as u64);
                    self.succeeded();
                }
                Err(Failure::Rejected { .. } | Failure::TooLarge { .. }) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(Failure::Rejected { why }) => self.skip(part, DropReason::Rejected, &why),
                Err(Failure::TooLarge { why }) => self.skip(part, DropReason::TooLarge, &why),
                Err(failure) => {
                    parts.push(part);
                    if !self.failed(failure).await {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn skip(&mut self, part: &[Outgoing], reason: DropReason, why: &str) {
        for outgoing in part {
            self.metrics.sink.dropped(reason, 1);
            log::error!(
                "a sink refuses an alert, which is skipped",
                sink = self.name,
                id = outgoing.alert.id,
                why
            );
        }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.metrics.up(true);
        if std::mem::take(&mut self.failing) {
            log::info!("a sink takes alerts again", sink = self.name);
        }
    }

    /// Waits until the next try. False if there is none.
    async fn failed(&mut self, failure: Failure) -> bool {
        let (why, after) = match failure {
            Failure::Retry { why, after } => (why, after),
            Failure::Rejected { why } | Failure::TooLarge { why } => (why, None),
        };
        self.metrics.up(false);
        self.metrics.retried();
        if std::mem::replace(&mut self.failing, true) {
            log::debug!("a sink still takes no alerts", sink = self.name, why);
        } else {
            log::warn!("a sink takes no alerts; they wait for it", sink = self.name, why);
        }
        if *self.phase.borrow() != Phase::Run {
            return false;
        }
        let wait = self.backoff.next(after);
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            // A last try, unless it is to stop at once.
            phase = self.phase.wait_for(|phase| *phase != Phase::Run) => phase.is_ok_and(|it| *it == Phase::Finish),
        }
    }
}
