//! Delivery of alerts to whoever acts on them, at least once.
//!
//! The keeper (`queue.rs`) takes alerts from the fan-out, numbers them, and writes them to the store. Each sink has a worker
//! (`worker.rs`), which reads them in order from where it is, passes over what its filter does not want, and repeats until
//! the other side has taken the rest. All of them share a thread, which exists only where sinks are configured.
//!
//! A new kind of sink is a file in `transport/` and a variant of `Transport`; a new format a file in `format/`.

mod backoff;
mod filter;
mod format;
pub mod names;
mod queue;
mod store;
mod transport;
mod worker;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::{Config, SinkConfig, Store},
    sinks::{Fanout, Want},
    telemetry::{Metrics, log},
};
use queue::{Keeper, Place, Queue};
use transport::Transport;
use worker::{Phase, Worker};

/// How long the workers go on when the agent ends; what is left then waits in the store.
const FINISH: Duration = Duration::from_millis(1500);

/// What is between the tasks of this thread and the tokio runtime.
const STACK: usize = 512 << 10;

/// All sinks that are configured, or none.
#[derive(Debug)]
pub struct Delivery {
    node: String,
    place: Store,
    fanout: Fanout,
    metrics: Metrics,
    /// The thread, while there are sinks.
    running: Option<Running>,
    configured: Vec<SinkConfig>,
}

#[derive(Debug)]
struct Running {
    orders: mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
    /// Ready when the thread has done everything.
    done: oneshot::Receiver<()>,
    /// Raised to have files opened anew.
    reopen: Arc<AtomicU64>,
}

enum Order {
    Sinks(Vec<SinkConfig>),
}

impl Delivery {
    /// Starts what is configured.
    pub fn start(config: &Config, fanout: &Fanout, metrics: &Metrics) -> io::Result<Delivery> {
        let mut delivery = Delivery {
            node: config.node_name(),
            place: config.store.clone(),
            fanout: fanout.clone(),
            metrics: metrics.clone(),
            running: None,
            configured: Vec::new(),
        };
        delivery.reload(&config.sinks)?;
        Ok(delivery)
    }

    /// Makes the running sinks those of `sinks`. What has not changed goes on undisturbed; one that goes takes what waited
    /// for it along; a new one gets what comes from now on.
    pub fn reload(&mut self, sinks: &[SinkConfig]) -> io::Result<()> {
        if sinks == self.configured {
            return Ok(());
        }
        for sink in sinks {
            // From the start, and not when the thread gets there.
            self.metrics.delivery(sink.name());
        }
        match &self.running {
            Some(running) => {
                let _ = running.orders.send(Order::Sinks(sinks.to_vec()));
            }
            None if sinks.is_empty() => {}
            None => self.running = Some(self.spawn(sinks.to_vec())?),
        }
        self.configured = sinks.to_vec();
        Ok(())
    }

    /// Files are closed, and opened again by their names at the next alert.
    pub fn reopen(&self) {
        if let Some(running) = &self.running {
            running.reopen.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn spawn(&self, sinks: Vec<SinkConfig>) -> io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // For files, the store and names; they do not wait long, or nothing helps.
            .max_blocking_threads(8)
            .thread_stack_size(STACK)
            .build()?;
        let (orders, received) = mpsc::unbounded_channel();
        let (guard, done) = oneshot::channel();
        let reopen = Arc::new(AtomicU64::new(0));
        // Before the thread runs: an alert that comes first must not be missed.
        let alerts = self.fanout.subscribe(Want::Alerts, false, self.metrics.sink("store", false));
        let place = Place { path: self.place.path.clone(), max_bytes: self.place.max_bytes };
        let manager = Manager {
            node: self.node.clone().into(),
            metrics: self.metrics.clone(),
            reopen: Arc::clone(&reopen),
            workers: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name("delivery".into()).spawn(move || {
            runtime.block_on(manager.run(place, alerts, sinks, received));
            // A write to a disk that hangs must not hold up the end.
            runtime.shutdown_background();
            let _ = guard.send(());
        })?;
        Ok(Running { orders, thread, done, reopen })
    }

    /// Ready when everything is delivered or in the store. To be called when the fan-out is closed.
    pub async fn ended(self) {
        if let Some(running) = self.running {
            drop(running.orders);
            let _ = running.done.await;
            let _ = running.thread.join();
        }
    }
}

/// What runs on the thread.
struct Manager {
    node: Arc<str>,
    metrics: Metrics,
    reopen: Arc<AtomicU64>,
    workers: BTreeMap<String, Active>,
}

struct Active {
    config: SinkConfig,
    phase: watch::Sender<Phase>,
    task: tokio::task::JoinHandle<()>,
}

impl Manager {
    async fn run(
        mut self,
        place: Place,
        alerts: crate::sinks::Subscription,
        sinks: Vec<SinkConfig>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let (metrics, names) = (self.metrics.clone(), names(&sinks));
        let opened = tokio::task::spawn_blocking(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Keeper::open(place, alerts, &metrics, &names)
        });
        let (keeper, queue) = match opened.await {
            Ok(opened) => opened,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.apply(&queue, sinks).await;
        let mut keeping = tokio::spawn(keeper.run());
        let keeper = loop {
            tokio::select! {
                ended = &mut keeping => break ended,
                Some(Order::Sinks(sinks)) = orders.recv() => self.apply(&queue, sinks).await,
            }
        };
        self.finish().await;
        let Ok(keeper) = keeper else { return };
        let last_words = tokio::task::spawn_blocking(move || keeper.finish());
        match tokio::time::timeout(FINISH, last_words).await {
            Ok(Ok(0)) => {}
            Ok(Ok(lost)) => {
                log::error!(
                    "alerts are lost: no sink has them all, and they could not be stored",
                    count = lost
                );
            }
            Ok(Err(_)) | Err(_) => log::error!("the store did not take its last words"),
        }
    }

    async fn apply(&mut self, queue: &Queue, sinks: Vec<SinkConfig>) {
        let gone: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, active)| !sinks.contains(&active.config))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(active) = self.workers.remove(&name) {
                active.phase.send_replace(Phase::Stop);
                let _ = active.task.await;
            }
            if !sinks.iter().any(|sink| sink.name() == name) {
                queue.leave(&name);
                self.metrics.forget_sink(&name);
                log::info!("a sink is gone", sink = name);
            }
        }
        for config in sinks {
            let name = config.name().to_owned();
            if self.workers.contains_key(&name) {
                continue;
            }
            let metrics = self.metrics.delivery(&name);
            queue.join(&name, metrics.clone());
            let (phase, phases) = watch::channel(Phase::Run);
            let transport = Transport::new(&config, &self.node, &self.reopen);
            let worker = Worker::new(&config, transport, queue.clone(), metrics, phases);
            let task = tokio::spawn(worker.run());
            self.workers.insert(name, Active { config, phase, task });
        }
    }

    /// Gives all workers a last moment.
    async fn finish(&mut self) {
        for active in self.workers.values() {
            active.phase.send_replace(Phase::Finish);
        }
        let deadline = tokio::time::Instant::now() + FINISH;
        for (_, mut active) in std::mem::take(&mut self.workers) {
            if tokio::time::timeout_at(deadline, &mut active.task).await.is_err() {
                active.task.abort();
            }
        }
    }
}

fn names(sinks: &[SinkConfig]) -> Vec<String> {
    sinks.iter().map(|sink| sink.name().to_owned()).collect()
}

#[cfg(test)]
pub(crate) use format::tests::full as full_alert;
#[cfg(test)]
mod tests;
