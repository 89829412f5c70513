//! Alerts on standard output: a JSON line each, or a readable form for a terminal. Written by a thread of its own, so
//! that a reader who has stopped reading stops nothing else.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use tokio::sync::mpsc;

use super::{Running, Sink, SinkError, Start, Subscription, TailItem, Want};
use crate::{
    config::StdoutFormat,
    render::{self, Colours},
    scheduling,
    telemetry::{
        log,
        metrics::{DropReason, SinkMetrics},
    },
};

pub(super) const SINK: Sink = Sink { name: "stdout", start };

/// A batch is written when it is as large as this, or nothing more is queued: at once when idle, in few writes in a
/// flood.
const BATCH: usize = 64 << 10;

/// Rendering needs little.
const STACK: usize = 256 << 10;

fn start(start: &Start<'_>) -> Result<Running, SinkError> {
    let stdout = io::stdout();
    let format = match start.config.stdout.format {
        StdoutFormat::Json => Format::Json,
        StdoutFormat::Text => Format::Text(Colours::of(&stdout)),
        StdoutFormat::Auto if stdout.is_terminal() => Format::Text(Colours::of(&stdout)),
        StdoutFormat::Auto => Format::Json,
    };
    // The standard library's own would buffer half a batch behind our back when a write fails.
    let file = File::from(stdout.as_fd().try_clone_to_owned().map_err(SinkError::Stdout)?);
    let metrics = start.metrics.sink(SINK.name, true);
    let subscription = start.fanout.subscribe(Want::Alerts, false, metrics.clone());
    let (guard, done) = mpsc::channel(1);
    let reader_gone = start.reader_gone.clone();
    std::thread::Builder::new()
        .name(SINK.name.to_owned())
        .stack_size(STACK)
        .spawn(move || {
            scheduling::at_once();
            if let End::ReaderGone = write_all(file, subscription, format, &metrics) {
                log::info!("standard output was closed by its reader");
                reader_gone.notify_one();
            }
            drop(guard);
        })
        .map_err(SinkError::Stdout)?;
    Ok(Running { done })
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Json,
    Text(Colours),
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    ReaderGone,
}

fn write_all(
    mut to: impl Write + AsFd,
    mut alerts: Subscription,
    format: Format,
    metrics: &SinkMetrics,
) -> End {
    let mut batch = Vec::new();
    // False while writes fail: said once, not for each alert.
    let mut well = true;
    while let Some(item) = alerts.blocking_recv() {
        let mut count = add(&mut batch, &item, format);
        while batch.len() < BATCH
            && let Ok(item) = alerts.try_recv()
        {
            count += add(&mut batch, &item, format);
        }
        match write_batch(&mut to, &batch) {
            Ok(()) => {
                metrics.written(count);
                well = true;
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return End::ReaderGone,
            Err(error) => {
                metrics.dropped(DropReason::WriteFailed, count);
                if std::mem::take(&mut well) {
                    log::error!("cannot write alerts to standard output", error);
                }
            }
        }
        batch.clear();
        batch.shrink_to(BATCH);
    }
    End::Closed
}

/// Returns how many alerts were added.
fn add(batch: &mut Vec<u8>, item: &TailItem, format: Format) -> u64 {
    match (item, format) {
        (TailItem::Alert(alert), Format::Json) => {
            let start = batch.len();
            match serde_json::to_writer(&mut *batch, &**alert) {
                Ok(()) => batch.push(b'\n'),
                Err(_) => batch.truncate(start),
            }
            1
        }
        (TailItem::Alert(alert), Format::Text(colours)) => {
            batch.extend_from_slice(render::alert(alert, colours).as_bytes());
            1
        }
        // Every line of the JSON form is an alert, which its readers rely on; so this is said in the log.
        (TailItem::Missed(count), Format::Json) => {
            log::warn!("alerts were dropped: standard output did not take them in time", count);
            0
        }
        (TailItem::Missed(count), Format::Text(colours)) => {
            batch.extend_from_slice(render::missed(*count, colours).as_bytes());
            0
        }
        (TailItem::Event(_), _) => 0,
    }
}

/// Standard output may be non-blocking: it is shared with whoever else has the terminal or pipe open.
fn write_batch(to: &mut (impl Write + AsFd), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_writable(to)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_writable(to: &impl AsFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: to.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid structure that outlives the call.
    if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};

    use super::*;
    use crate::{
        sinks::{Fanout, protocol::sample},
        telemetry::Metrics,
    };

    /// A writing thread with a pipe in place of standard output.
    fn started(format: Format) -> (Fanout, io::PipeReader, std::thread::JoinHandle<End>, Metrics) {
        let (fanout, metrics) = (Fanout::new(), Metrics::new());
        let (reader, writer) = io::pipe().expect("a pipe");
        let sink = metrics.sink("stdout", true);
        let subscription = fanout.subscribe(Want::Alerts, false, sink.clone());
        let thread = std::thread::spawn(move || write_all(writer, subscription, format, &sink));
        (fanout, reader, thread, metrics)
    }

    #[test]
    fn an_alert_is_a_line_at_once_and_the_rest_comes_before_the_end() {
        let (fanout, reader, thread, metrics) = started(Format::Json);
        let mut reader = BufReader::new(reader);
        for n in 0..3 {
            fanout.alert(&sample::alert(&format!("m{n}")));
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(json["message"], format!("m{n}"));
        }
        for n in 0..1000 {
            fanout.alert(&sample::alert(&n.to_string()));
        }
        fanout.close();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("the rest");
        assert_eq!(rest.lines().count(), 1000);
        assert_eq!(thread.join().expect("the thread"), End::Closed);
        assert!(metrics.expose(false).contains("observer_sink_alerts_total{sink=\"stdout\"} 1003\n"));
    }

    #[test]
    fn a_reader_that_leaves_ends_it() {
        let (fanout, reader, thread, _) = started(Format::Json);
        drop(reader);
        fanout.alert(&sample::alert("to nobody"));
        assert_eq!(thread.join().expect("the thread"), End::ReaderGone);
    }

    #[test]
    fn a_reader_that_stops_reading_stops_nothing() {
        let (fanout, mut reader, thread, metrics) = started(Format::Text(Colours::OFF));
        let start = std::time::Instant::now();
        for n in 0..20_000 {
            fanout.alert(&sample::alert(&n.to_string()));
        }
        assert!(start.elapsed().as_secs() < 5);
        let lost = metrics.lost_total();
        assert!(lost > 0);
        fanout.close();
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the text");
        assert!(text.contains("missed here: the reader was too slow"));
        assert_eq!(thread.join().expect("the thread"), End::Closed);
        assert_eq!(text.matches("CRITICAL").count() as u64 + metrics.lost_total(), 20_000);
    }
}
