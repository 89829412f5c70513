//! Where alerts and events go. The pipeline hands them to [`Fanout`], which never waits: each reader has a bounded
//! queue, and what finds it full is dropped, counted, and told to the reader in its place.
//!
//! A new sink is a file with a [`Sink`] and a line in [`SINKS`]: it subscribes, starts what writes, and ends by
//! itself when the fan-out is closed and its queue is empty.

mod fanout;
mod filter;
pub mod protocol;
mod questions;
mod socket;
mod stdout;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{Notify, mpsc};

pub use fanout::{Fanout, Subscription};
pub use filter::Filter;
pub use protocol::Want;
#[cfg(test)]
pub(crate) use protocol::sample;

use crate::{
    config::Config,
    delivery::Delivery,
    model::{Alert, EventRecord},
    telemetry::{Metrics, log},
};

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum TailItem {
    Alert(Arc<Alert>),
    Event(Arc<EventRecord>),
    /// So many items are missing here.
    Missed(u64),
}

/// A place that alerts are written to.
pub struct Sink {
    /// The label of its metrics.
    pub name: &'static str,
    start: fn(&Start<'_>) -> Result<Running, SinkError>,
}

/// All of them.
pub const SINKS: &[Sink] = &[stdout::SINK, socket::SINK];

/// How long the queues may take to be written when the agent ends.
const DRAIN: Duration = Duration::from_secs(3);

/// ... and the store, after that: it has bounds of its own, which are shorter.
const DELIVERY_DRAIN: Duration = Duration::from_secs(1);

/// Why a sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("cannot write to standard output: {0}")]
    Stdout(std::io::Error),
    #[error("socket {}: {what}", path.display())]
    Socket { path: PathBuf, what: String },
    #[error("cannot start the delivery of alerts: {0}")]
    Delivery(std::io::Error),
}

/// What a sink starts from.
struct Start<'a> {
    config: &'a Config,
    fanout: &'a Fanout,
    metrics: &'a Metrics,
    /// To be notified when the one reader without whom the agent has no purpose is gone.
    reader_gone: Arc<Notify>,
}

/// A sink at work.
struct Running {
    /// Closed when everything is written: each of its threads or tasks holds a sender until then.
    done: mpsc::Receiver<()>,
}

/// The sinks of one agent.
pub struct Sinks {
    fanout: Fanout,
    running: Vec<(&'static str, Running)>,
    delivery: Delivery,
    reader_gone: Arc<Notify>,
}

impl Sinks {
    /// Starts all of them. To be called inside a tokio runtime.
    pub fn start(config: &Config, metrics: &Metrics) -> Result<Sinks, SinkError> {
        let (fanout, reader_gone) = (Fanout::new(), Arc::new(Notify::new()));
        let start = Start { config, fanout: &fanout, metrics, reader_gone: Arc::clone(&reader_gone) };
        let running =
            SINKS.iter().map(|sink| Ok((sink.name, (sink.start)(&start)?))).collect::<Result<_, _>>()?;
        let delivery = Delivery::start(config, &fanout, metrics).map_err(SinkError::Delivery)?;
        Ok(Sinks { fanout, running, delivery, reader_gone })
    }

    /// The sinks that can come and go.
    pub fn delivery(&mut self) -> &mut Delivery {
        &mut self.delivery
    }

    /// For the pipeline's thread.
    pub fn fanout(&self) -> Fanout {
        self.fanout.clone()
    }

    /// Ready when whoever read standard output has closed it: the agent should end, as other programs in a pipe do.
    pub async fn reader_gone(&self) {
        self.reader_gone.notified().await;
    }

    /// Writes everything that is queued, for at most three seconds. Call it when the pipeline has ended. False if
    /// something is left.
    pub async fn drain(self) -> bool {
        self.fanout.close();
        let deadline = tokio::time::Instant::now() + DRAIN;
        let mut all = true;
        for (name, mut running) in self.running {
            if tokio::time::timeout_at(deadline, running.done.recv()).await.is_err() {
                log::warn!("a sink did not take everything before the end", sink = name);
                all = false;
            }
        }
        if tokio::time::timeout_at(deadline + DELIVERY_DRAIN, self.delivery.ended()).await.is_err() {
            log::warn!("the store was not closed in time");
            all = false;
        }
        all
    }
}
