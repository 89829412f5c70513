//! `observer tail`: alerts or events as they come, from the agent's socket, or by loading the probes itself when no
//! agent runs.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::builder::PossibleValuesParser;
use observer_common::ALL_KINDS;

use super::{
    Global,
    agent::{connect, say},
};
use crate::{
    model::Severity,
    render::{self, Colours},
    sinks::{
        Fanout, Filter, Subscription, TailItem, Want,
        protocol::{Received, Request, Subscribe},
    },
    telemetry::Metrics,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show events instead of alerts
    #[arg(long)]
    events: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only alerts of this severity and above
    #[arg(long, value_enum, value_name = "MIN", conflicts_with = "events")]
    severity: Option<Severity>,
    /// Only this container, by the beginning of its id or by its name; can be repeated
    #[arg(long, value_name = "ID|NAME")]
    container: Vec<String>,
    /// Only alerts of this rule; `namespace.*` for all that begin so; can be repeated
    #[arg(long, value_name = "RULE", conflicts_with = "events")]
    rule: Vec<String>,
    /// Only events of this kind; can be repeated
    #[arg(long, requires = "events", value_parser = PossibleValuesParser::new(ALL_KINDS.map(|kind| kind.name())))]
    kind: Vec<String>,
    /// Show the agent's last hundred alerts first
    #[arg(long, conflicts_with = "events")]
    recent: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let config = global.config()?;
    let format = if args.json {
        Format::Json
    } else if args.no_color {
        Format::Text(Colours::OFF)
    } else {
        Format::Text(Colours::of(&io::stdout()))
    };
    let request = Subscribe {
        subscribe: if args.events { Want::Events } else { Want::Alerts },
        filter: Filter {
            severity: args.severity,
            containers: args.container,
            rules: args.rule,
            kinds: args.kind,
        },
        recent: args.recent,
    };
    let output = Output { stdout: Arc::new(Mutex::new(io::stdout())), format };
    end_on_signal(Arc::clone(&output.stdout))?;

    let (what, path) = (if args.events { "events" } else { "alerts" }, &config.socket.path);
    match connect(path)? {
        Some(stream) => {
            say(&format!("{what} from the agent on {}", path.display()));
            follow(stream, &request, &output)
        }
        None => {
            say(&format!("no agent on {}: watching {what} alone", path.display()));
            alone(config, &request, output)
        }
    }
}

/// No line of an agent's is longer.
const MAX_LINE: u64 = 4 << 20;
/// Lines are written together up to this size, or until no more have come.
const BATCH: usize = 64 << 10;

fn follow(mut stream: UnixStream, request: &Subscribe, output: &Output) -> anyhow::Result<ExitCode> {
    let mut line =
        serde_json::to_vec(&Request::Subscribe(request.clone())).context("cannot write the request")?;
    line.push(b'\n');
    // An agent that hangs up at once may still have said why.
    let sent = stream.write_all(&line);
    let mut reader = BufReader::with_capacity(BATCH, stream);
    let mut batch = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.context("cannot read from the agent")? == 0 {
            output.write(&batch)?;
            if sent.is_err() {
                bail!("the agent did not take the request");
            }
            bail!("the agent has ended");
        }
        let received: Received<'_> =
            serde_json::from_slice(&line).context("the agent sent what is no line of its own")?;
        if let Some(reason) = received.error {
            bail!("the agent refuses: {reason}");
        }
        output.add_received(&received, &mut batch)?;
        if reader.buffer().is_empty() || batch.len() >= BATCH {
            output.write(&batch)?;
            batch.clear();
        }
    }
}

/// The pipeline runs on this thread and hands over what it finds; another thread writes, because a terminal can be
/// paused and the kernel's rings cannot.
fn alone(config: crate::config::Config, request: &Subscribe, output: Output) -> anyhow::Result<ExitCode> {
    let fanout = Fanout::new();
    let subscription = fanout.subscribe(request.subscribe, false, Metrics::new().sink("tail", false));
    let writer = std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        if let Err(error) = write_all(subscription, &output) {
            // The pipeline may have nothing to say for hours, so there is no waiting for it to notice.
            std::process::exit(super::failed(&error.into()).into());
        }
    })?;
    let want_events = request.subscribe == Want::Events;
    crate::app::standalone_tail(config, want_events, |item| {
        match &item {
            TailItem::Alert(alert) if request.filter.passes_alert(alert) => fanout.alert(alert),
            TailItem::Event(event) if request.filter.passes_event(event) => fanout.event(event),
            TailItem::Alert(_) | TailItem::Event(_) => {}
            TailItem::Missed(count) => say(&format!("{count} events were lost before they got here")),
        }
        ControlFlow::Continue(())
    })?;
    fanout.close();
    let _ = writer.join();
    Ok(ExitCode::SUCCESS)
}

fn write_all(mut items: Subscription, output: &Output) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Some(item) = items.blocking_recv() {
        output.add(&item, &mut batch)?;
        while batch.len() < BATCH
            && let Ok(item) = items.try_recv()
        {
            output.add(&item, &mut batch)?;
        }
        output.write(&batch)?;
        batch.clear();
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Json,
    Text(Colours),
}

struct Output {
    /// Locked while something is written, so that a signal does not cut a line.
    stdout: Arc<Mutex<io::Stdout>>,
    format: Format,
}

impl Output {
    fn write(&self, batch: &[u8]) -> io::Result<()> {
        let mut stdout = self.stdout.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stdout.write_all(batch)?;
        stdout.flush()
    }

    fn add(&self, item: &TailItem, batch: &mut Vec<u8>) -> io::Result<()> {
        match (self.format, item) {
            (_, TailItem::Missed(count)) => self.add_missed(*count, batch),
            (Format::Json, TailItem::Alert(alert)) => {
                serde_json::to_writer(&mut *batch, &**alert)?;
                batch.push(b'\n');
            }
            (Format::Json, TailItem::Event(event)) => {
                serde_json::to_writer(&mut *batch, &**event)?;
                batch.push(b'\n');
            }
            (Format::Text(colours), TailItem::Alert(alert)) => {
                batch.extend(render::alert(alert, colours).bytes())
            }
            (Format::Text(colours), TailItem::Event(event)) => {
                batch.extend(render::event(event, colours).bytes())
            }
        }
        Ok(())
    }

    /// As JSON it is passed on as it came: a newer agent may say more than this program knows.
    fn add_received(&self, received: &Received<'_>, batch: &mut Vec<u8>) -> io::Result<()> {
        match (self.format, received) {
            (Format::Json, Received { alert: Some(raw), .. } | Received { event: Some(raw), .. }) => {
                batch.extend(raw.get().bytes());
                batch.push(b'\n');
            }
            (Format::Text(colours), Received { alert: Some(raw), .. }) => {
                batch.extend(render::alert(&serde_json::from_str(raw.get())?, colours).bytes());
            }
            (Format::Text(colours), Received { event: Some(raw), .. }) => {
                batch.extend(render::event(&serde_json::from_str(raw.get())?, colours).bytes());
            }
            (_, Received { missed: Some(count), .. }) => self.add_missed(*count, batch),
            _ => {}
        }
        Ok(())
    }

    fn add_missed(&self, count: u64, batch: &mut Vec<u8>) {
        match self.format {
            Format::Json => batch.extend(format!("{{\"missed\":{count}}}\n").bytes()),
            Format::Text(colours) => batch.extend(render::missed(count, colours).bytes()),
        }
    }
}

/// Ends with 0 on Ctrl-C, between two lines: a reader that has seen enough is no failure. The kernel takes probes
/// away with the process that loaded them.
fn end_on_signal(stdout: Arc<Mutex<io::Stdout>>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    // Installed before this returns, so that none is missed.
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(128 << 10).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // A terminal that is paused holds the lock for as long as it likes.
        for _ in 0..20 {
            if let Ok(_whole_lines) = stdout.try_lock() {
                std::process::exit(0);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::process::exit(0);
    })?;
    Ok(())
}
