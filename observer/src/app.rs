//! The wiring, and the only place that knows all the parts: which thread does what, what starts first and what ends
//! last.
//!
//! The pipeline has a thread of its own (`pipeline::Live`); everything that waits for others (HTTP, the socket,
//! signals) shares one thread with a tokio runtime. They meet in `sinks::Fanout`, which never blocks.

use std::{
    collections::BTreeMap,
    future::Future,
    io::IsTerminal,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    config::{Config, HostNamespaces},
    exceptions::Exceptions,
    host::{Roots, cri::Sockets},
    inventory::Membership,
    kernel::{Kernel, KernelError, LoadOptions, Pretend},
    limits::ContainerResources,
    model::{Alert, EventRecord, Observed},
    pipeline::{
        ContainerAccesses, ContainerCalls, ContainerChecks, Live, LiveError, LiveOptions, Output, Status,
        StopSignal,
    },
    protection,
    reload::Reloader,
    scheduling,
    sinks::{Fanout, SinkError, Sinks, TailItem},
    telemetry::{
        Health, Metrics, http, log,
        metrics::{AppArmorSeries, CallSeries, CapabilitySeries, ResourceSeries, Ring},
    },
};

/// How often the configuration's file is looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// Why the agent could not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error("the pipeline's thread ended unexpectedly")]
    Panicked,
}

/// Where the configuration says that the host's things are.
pub fn roots(config: &Config) -> Roots {
    Roots {
        proc: config.host.proc.clone(),
        cgroup: config.host.cgroup.clone(),
        run: config.host.run.clone(),
        lib: config.host.lib.clone(),
        docker: config.host.docker.clone(),
    }
}

fn live_options(config: &Config, record: Option<PathBuf>) -> LiveOptions {
    LiveOptions {
        node: config.node_name(),
        roots: roots(config),
        cri_sockets: Sockets::new(config.host.cri_sockets.as_deref(), &config.host.run),
        sweep_seconds: config.sweep_seconds,
        limits: config.limits.clone(),
        own_host: config.host_namespaces == HostNamespaces::Own,
        first_use_after: first_use_after(config),
        record,
    }
}

fn first_use_after(config: &Config) -> Option<Duration> {
    config.audit.first_use_after_seconds.on().map(|after| Duration::from_secs(after.0))
}

pub fn load_options(config: &Config) -> LoadOptions {
    LoadOptions {
        events_bytes: config.rings.events_bytes,
        priority_bytes: config.rings.priority_bytes,
        pretend: Pretend::without(&config.kernel.pretend_without),
        audit_capabilities: config.audit.capabilities,
        audit_syscalls: config.audit.syscalls || first_use_after(config).is_some(),
        audit_seccomp: config.audit.seccomp,
        audit_apparmor: config.audit.apparmor,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, AppError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Ready when the process is asked to end.
async fn asked_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `observer run`: until SIGTERM or SIGINT, or until nobody reads the alerts any more.
/// `named` is the file that `config` was read from, if one was named: it is read again when it changes.
pub fn run(config: &Config, named: Option<&Path>) -> Result<(), AppError> {
    let started = Instant::now();
    scheduling::prefer();
    let runtime = runtime()?;
    runtime.block_on(async {
        // First of all: until then the signal would end the agent, and a service manager takes that for a wish.
        let mut hang_up = signal(SignalKind::hangup())?;
        let metrics = Metrics::new();
        let health = Health::new();
        metrics.ring_bytes(Ring::Events, config.rings.events_bytes.into());
        metrics.ring_bytes(Ring::Priority, config.rings.priority_bytes.into());
        // What can be refused for reasons of configuration comes first, the kernel last.
        let server = match config.http.listen {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let mut sinks = Sinks::start(config, &metrics)?;
        let exceptions = Exceptions::new(&config.exceptions, &metrics);
        let mut reloader = Reloader::new(named, config, &metrics);
        let (end_http, http_ends) = oneshot::channel::<()>();
        if let Some(server) = server {
            let address = server.local_address();
            log::info!("listening", address);
            let end = async move {
                let _ = http_ends.await;
            };
            tokio::spawn(server.run(metrics.clone(), health.clone(), end));
        }
        let stop = StopSignal::new()?;
        let output = Agent {
            fanout: sinks.fanout(),
            exceptions: exceptions.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            counts: BTreeMap::new(),
            capabilities: CapabilitySeries::new(config.metrics.max_containers),
            resources: ResourceSeries::new(config.metrics.max_containers),
            calls: CallSeries::new(config.metrics.max_containers),
            apparmor: AppArmorSeries::new(config.metrics.max_containers),
        };
        let (config, thread_stop) = (config.clone(), stop.clone());
        let (done, mut pipeline_done) = oneshot::channel();
        let pipeline = thread::Builder::new().name("pipeline".into()).spawn(move || {
            let result = agent_pipeline(&config, &thread_stop, output, started);
            let _ = done.send(());
            result
        })?;
        // Started by hand, the signal means what it means to every program.
        let on_terminal = std::io::stdout().is_terminal();
        let mut look = tokio::time::interval(RELOAD);
        let end = asked_to_end();
        tokio::pin!(end);
        loop {
            let reload = tokio::select! {
                result = &mut end => break result?,
                () = sinks.reader_gone() => break log::info!("nobody reads standard output any more"),
                // An error, or a panic: both are in what the thread returns.
                _ = &mut pipeline_done => break,
                _ = hang_up.recv() => {
                    if on_terminal {
                        break log::info!("the terminal is gone");
                    }
                    sinks.delivery().reopen();
                    true
                }
                _ = look.tick() => reloader.has_changed(),
            };
            if reload && let Some(config) = reloader.read() {
                exceptions.reload(&config.exceptions);
                if let Err(error) = sinks.delivery().reload(&config.sinks) {
                    log::error!("the sinks cannot be changed", error);
                }
            }
        }
        health.set_ready(false);
        stop.stop();
        let result = pipeline.join().unwrap_or(Err(AppError::Panicked));
        let drained = sinks.drain().await;
        let _ = end_http.send(());
        if result.is_ok() {
            log::info!("ended", drained);
        }
        result
    })
}

/// The pipeline's thread of `run`.
fn agent_pipeline(
    config: &Config,
    stop: &StopSignal,
    mut output: Agent,
    started: Instant,
) -> Result<(), AppError> {
    #[cfg_attr(
        not(feature = "bpf-log"),
        expect(unused_mut, reason = "only the log takes something out of it")
    )]
    let mut kernel = Kernel::load(&load_options(config))?;
    #[cfg(feature = "bpf-log")]
    kernel.start_log()?;
    for status in &kernel.features {
        for tier in status.feature.tiers {
            let serves = status.tier.is_some_and(|serving| serving.name == tier.name);
            output.metrics.feature(status.feature.name, tier.name, serves);
        }
    }
    tell_what_is_missing(&kernel);
    let hooks: usize = kernel.features.iter().filter_map(|it| it.tier).map(|tier| tier.probes.len()).sum();
    let live = Live::start(kernel, live_options(config, None))?;
    output.health.set_ready(true);
    output.health.beat();
    let took_ms = started.elapsed().as_millis();
    log::info!("armed", hooks, took_ms);
    scheduling::at_once();
    if config.self_protection {
        protection::give_up();
    }
    Ok(live.run(stop, &mut output)?)
}

/// One line for each feature that this kernel does not let us serve.
fn tell_what_is_missing(kernel: &Kernel) {
    for status in kernel.features.iter().filter(|status| status.asked && status.tier.is_none()) {
        let why = status.refused.last().map(|(_, error)| error.to_string()).unwrap_or_default();
        log::warn!("a feature is off", feature = status.feature.name, without = status.feature.without, why);
    }
}

/// Output of an agent: sinks, metrics, health.
struct Agent {
    fanout: Fanout,
    exceptions: Exceptions,
    metrics: Metrics,
    health: Health,
    /// Events since the metrics were last told: one addition per event instead of a look-up of its series.
    counts: BTreeMap<&'static str, u64>,
    capabilities: CapabilitySeries,
    resources: ResourceSeries,
    calls: CallSeries,
    apparmor: AppArmorSeries,
}

impl Output for Agent {
    fn alert(&mut self, alert: Arc<Alert>, latency_ns: u64) {
        // What was there before the agent has no latency.
        if latency_ns > 0 {
            self.metrics.latency(Duration::from_nanos(latency_ns));
        }
        if self.exceptions.hide(&alert) {
            return;
        }
        self.metrics.alert(&alert.rule, alert.severity);
        self.fanout.alert(&alert);
    }

    fn event(&mut self, event: Arc<EventRecord>) {
        self.fanout.event(&event);
    }

    fn wants_events(&self) -> bool {
        self.fanout.wants_events()
    }

    fn is_asked(&self) -> bool {
        self.fanout.is_asked()
    }

    fn answer(&mut self, membership: Membership) {
        self.fanout.answer(membership);
    }

    fn is_asked_observed(&self) -> bool {
        self.fanout.is_asked_observed()
    }

    fn answer_observed(&mut self, observed: Observed) {
        self.fanout.answer_observed(observed);
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    fn rings_read(&mut self) {
        self.health.beat();
        for (kind, count) in std::mem::take(&mut self.counts) {
            self.metrics.events(kind, count);
        }
    }

    fn counts(&mut self, containers: &BTreeMap<&'static str, usize>, processes: usize) {
        self.metrics.containers(containers.iter().map(|(runtime, count)| (*runtime, *count)));
        self.metrics.processes(processes);
    }

    fn capabilities(&mut self, containers: &[ContainerChecks], classified: bool) {
        self.capabilities.show(&self.metrics, containers, classified);
    }

    fn resources(&mut self, containers: &[ContainerResources]) {
        self.resources.show(&self.metrics, containers);
    }

    fn calls(&mut self, containers: &[ContainerCalls]) {
        self.calls.show(&self.metrics, containers);
    }

    fn accesses(&mut self, containers: &[ContainerAccesses]) {
        self.apparmor.show(&self.metrics, containers);
    }

    fn status(&mut self, status: &Status<'_>) {
        for (loss, name) in observer_common::ALL_LOSSES {
            self.metrics.lost(name, status.tick.lost[loss as usize]);
        }
        self.metrics.lost("decode", status.tick.undecodable);
        self.metrics.lost("skipped", status.tick.skipped);
        self.metrics.lost("audit_log", status.tick.audit_log);
        self.metrics.lost("unattributed", status.unattributed);
        for (rule, count) in &status.folded {
            self.metrics.alerts_folded(rule, *count);
        }
        if let Some(watch) = &status.resources {
            self.metrics.resource_watch(watch);
        }
        self.metrics.ring_used_bytes(Ring::Events, status.ring_used[0]);
        self.metrics.ring_used_bytes(Ring::Priority, status.ring_used[1]);
    }
}

/// Runs a pipeline without agent on this thread, until a signal, the deadline, or the output's end.
fn alone(
    config: &Config,
    record: Option<&Path>,
    until: Option<Duration>,
    armed: impl FnOnce(),
    output: &mut impl Output,
) -> Result<(), AppError> {
    let stop = StopSignal::new()?;
    let signals = runtime()?;
    let asked = stop.clone();
    // Before the kernel is touched, so that no signal falls through.
    let guard = signals.enter();
    let end: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        let signalled = asked_to_end();
        match until {
            Some(time) => drop(tokio::time::timeout(time, signalled).await),
            None => drop(signalled.await),
        }
    });
    drop(guard);
    let kernel = Kernel::load(&load_options(config))?;
    tell_what_is_missing(&kernel);
    let live = Live::start(kernel, live_options(config, record.map(Path::to_owned)))?;
    armed();
    thread::Builder::new().name("signals".into()).spawn(move || {
        signals.block_on(end);
        asked.stop();
    })?;
    Ok(live.run(&stop, output)?)
}

/// `observer tail` where no agent runs.
pub fn standalone_tail(
    config: Config,
    want_events: bool,
    sink: impl FnMut(TailItem) -> ControlFlow<()>,
) -> Result<(), AppError> {
    struct Tail<F> {
        exceptions: Exceptions,
        want_events: bool,
        sink: F,
        over: bool,
    }
    impl<F: FnMut(TailItem) -> ControlFlow<()>> Tail<F> {
        fn take(&mut self, item: TailItem) {
            self.over |= !self.over && (self.sink)(item).is_break();
        }
    }
    impl<F: FnMut(TailItem) -> ControlFlow<()>> Output for Tail<F> {
        fn alert(&mut self, alert: Arc<Alert>, _: u64) {
            if !self.exceptions.hide(&alert) {
                self.take(TailItem::Alert(alert));
            }
        }
        fn event(&mut self, event: Arc<EventRecord>) {
            self.take(TailItem::Event(event));
        }
        fn wants_events(&self) -> bool {
            self.want_events
        }
        fn count(&mut self, _: &'static str) {}
        fn status(&mut self, _: &Status<'_>) {}
        fn goes_on(&self) -> bool {
            !self.over
        }
    }
    let exceptions = Exceptions::new(&config.exceptions, &Metrics::new());
    alone(&config, None, None, || {}, &mut Tail { exceptions, want_events, sink, over: false })
}

/// What a recording holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    pub events: u64,
    pub alerts: u64,
    pub lost: u64,
}

impl Output for Recorded {
    fn alert(&mut self, _: Arc<Alert>, _: u64) {
        self.alerts += 1;
    }
    fn event(&mut self, _: Arc<EventRecord>) {}
    fn wants_events(&self) -> bool {
        false
    }
    fn count(&mut self, _: &'static str) {
        self.events += 1;
    }
    fn status(&mut self, status: &Status<'_>) {
        self.lost = status.tick.lost.iter().sum();
    }
}

/// `observer record`.
pub fn record(
    config: &Config,
    file: &Path,
    time: Option<Duration>,
    armed: impl FnOnce(),
) -> Result<Recorded, AppError> {
    let mut recorded = Recorded::default();
    alone(config, Some(file), time, armed, &mut recorded)?;
    Ok(recorded)
}
