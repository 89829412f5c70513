//! One sink at work: in order, again and again until the other side has it.
//!
//! A receiver that denies us (a token that has run out, say) is no reason to lose alerts: they wait until somebody has mended
//! it. But what answers so may mean what is sent, and that is partly a container's words: an alert that nothing gets past a
//! firewall must not hold up all others for good. So one of those that wait, chosen at random, is tried alone: if it gets through, the
//! denial is about what was sent with it, and is looked for as a rejection is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    backoff::Backoff,
    filter::Filter,
    queue::Queue,
    transport::{Failure, Refused, Transport},
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
/// How often it is said of a sink that it still takes nothing.
const REMIND: Duration = Duration::from_secs(600);

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
    /// When it was last said that the sink takes nothing, and whether because it denies us; `None` while it takes alerts.
    failing: Option<(Instant, bool)>,
    /// A denial is about what was sent: something else got through just now.
    gets_through: bool,
}

/// How a batch ended.
enum Ended {
    /// The other side has all of it, or will never take it.
    Done,
    /// We are to end, with something left.
    Stopped,
    /// The other side takes nothing from us: it has what stands before this place, and the rest is to be tried later.
    Denied { at: usize, failure: Failure },
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
            failing: None,
            gets_through: false,
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
            let mut batch = self.queue.next(&self.name, self.batch.max(READ_ALERTS), READ_BYTES);
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
            // Where in the batch each of them is.
            let mut places = Vec::with_capacity(batch.records.len());
            for (place, record) in batch.records.iter().enumerate() {
                match serde_json::from_slice::<Alert>(&record.json) {
                    Ok(alert) if self.filter.passes(&alert) => {
                        outgoing.push(Outgoing { alert, json: record.json.clone() });
                        places.push(place);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.metrics.sink.dropped(DropReason::Unreadable, 1);
                        log::error!("a stored alert cannot be read", sink = self.name, error);
                    }
                }
            }
            match self.deliver(&outgoing).await {
                Ended::Done => self.queue.taken(&self.name, &batch),
                Ended::Stopped => return,
                Ended::Denied { at, failure } => {
                    // Later anew from there: by then there is more to try.
                    batch.records.truncate(places.get(at).copied().unwrap_or_default());
                    self.queue.taken(&self.name, &batch);
                    if !self.failed(failure).await {
                        return;
                    }
                }
            }
        }
    }

    async fn deliver(&mut self, outgoing: &[Outgoing]) -> Ended {
        self.gets_through = false;
        // Parts of it, last first: a batch that is refused is tried in halves, so that one alert that the other side does
        // not like takes no other along.
        let mut parts: Vec<&[Outgoing]> = outgoing.chunks(self.batch.max(1)).rev().collect();
        while let Some(part) = parts.pop() {
            let Some(mut result) = self.send(part).await else { return Ended::Stopped };
            if let Err(Failure::Denied { why, perhaps }) = result {
                let at = outgoing.len() - part.len() - parts.iter().map(|it| it.len()).sum::<usize>();
                if perhaps && !self.gets_through && outgoing.len() - at > 1 {
                    let one = fastrand::usize(at..outgoing.len());
                    let Some(probe) = self.send(&outgoing[one..=one]).await else { return Ended::Stopped };
                    self.gets_through = probe.is_ok();
                }
                if !(perhaps && self.gets_through) {
                    return Ended::Denied { at, failure: Failure::Denied { why, perhaps } };
                }
                result = Err(Failure::Rejected { why });
            }
            match result {
                Ok(refused) => {
                    let refused = refused.map_or(0, |it| self.refused(&it));
                    self.metrics.sink.written(part.len() as u64 - refused);
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
                    // What got through before the wait says nothing about what is denied after it.
                    self.gets_through = false;
                    if !self.failed(failure).await {
                        return Ended::Stopped;
                    }
                }
            }
        }
        Ended::Done
    }

    /// `None` if it is to end at once.
    async fn send(&mut self, part: &[Outgoing]) -> Option<Result<Option<Refused>, Failure>> {
        let mut phase = self.phase.clone();
        tokio::select! {
            result = self.transport.send(part) => Some(result),
            _ = phase.wait_for(|phase| *phase == Phase::Stop) => None,
        }
    }

    /// Counts what the other side refuses of something that it has taken otherwise.
    fn refused(&mut self, Refused { count, why }: &Refused) -> u64 {
        self.metrics.sink.dropped(DropReason::Rejected, *count);
        log::error!("a sink refuses alerts, and does not say which", sink = self.name, count, why);
        *count
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
        if self.failing.take().is_some() {
            log::info!("a sink takes alerts again", sink = self.name);
        }
    }

    /// Waits until the next try. False if there is none.
    async fn failed(&mut self, failure: Failure) -> bool {
        let (why, after, denied) = match failure {
            Failure::Retry { why, after } => (why, after, false),
            Failure::Denied { why, .. } => (why, None, true),
            Failure::Rejected { why } | Failure::TooLarge { why } => (why, None, false),
        };
        self.metrics.up(false);
        self.metrics.retried();
        let told = self.failing.is_some_and(|(last, was)| was == denied && last.elapsed() < REMIND);
        if told {
            log::debug!("a sink still takes no alerts", sink = self.name, why);
        } else {
            self.failing = Some((Instant::now(), denied));
            if denied {
                // Nobody but the operator ends this.
                log::error!(
                    "a sink denies this agent; alerts wait until its credentials or its address are mended",
                    sink = self.name,
                    why
                );
            } else {
                log::warn!("a sink takes no alerts; they wait for it", sink = self.name, why);
            }
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
