//! `observer top`: what every container uses, as it changes.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyEvent};

use super::{
    Global,
    look::{Answer, Looker},
};
use crate::{
    host::{
        Hierarchy,
        resources::{Row, Sample, Sampler},
    },
    inventory::Member,
    render::{Colours, top, words},
};

/// Like `docker stats`, for the containers of all runtimes. Keys: `?` shows them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds between looks
    #[arg(long, short, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    interval: f64,
    /// One JSON object a line, one line at each look
    #[arg(long)]
    json: bool,
    /// Look twice, print the second look, and end
    #[arg(long)]
    once: bool,
    /// Do not ask the running agent which containers there are; find out by looking
    #[arg(long)]
    no_agent: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
}

/// Shorter ones measure the clock, and a look at hundreds of containers takes a while itself.
fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("not in 0.1..=3600".to_owned()) }
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut looker = Looker::new(args.no_agent, global)?;
    let hierarchies = looker.hierarchies.clone();
    // What cannot be asked now may be asked the next time: until then there is nothing to show.
    looker.ask()?;
    show(&args, &hierarchies, &mut || looker.ask().map(rows).unwrap_or_default())
}

fn rows(answer: Answer) -> Vec<Row> {
    let row = |member: Member| Row {
        name: match &member.pod {
            Some(pod) => Some(words::pod(pod)),
            None => member.name,
        },
        id: member.id,
        runtime: member.runtime,
        cgroups: member.cgroups.into_iter().map(|cgroup| (cgroup.hierarchy, cgroup.path)).collect(),
    };
    answer.membership.containers.into_iter().map(row).collect()
}

/// Shows these containers, whatever finds them, until it is told to end.
pub fn show(
    args: &Args,
    hierarchies: &[Hierarchy],
    source: &mut dyn FnMut() -> Vec<Row>,
) -> anyhow::Result<ExitCode> {
    let interval = Duration::from_secs_f64(args.interval);
    let live = !args.json && !args.once;
    if live && !io::stdout().is_terminal() {
        // (`eprintln!` would panic if nobody listens.)
        let _ = writeln!(io::stderr(), "observer: standard output is no terminal: use --once or --json");
        return Ok(ExitCode::from(super::BAD_USAGE));
    }
    let (sender, messages) = mpsc::channel();
    end_on_signal(sender.clone())?;
    let mut sampler = Sampler::new(hierarchies);
    let mut look = || sampler.sample(source());
    if live {
        let colours = if args.no_color { Colours::OFF } else { Colours::of(&io::stdout()) };
        let screen = top::Screen::new(colours, args.interval);
        on_screen(screen, interval, sender, &messages, &mut look)?;
    } else {
        in_lines(args, interval, &messages, &mut look)?;
    }
    Ok(ExitCode::SUCCESS)
}

enum Message {
    Key(KeyEvent),
    /// The terminal has another size.
    Redraw,
    End,
}

/// For pipes. Every line has rates, so the first look is not shown.
fn in_lines(
    args: &Args,
    interval: Duration,
    messages: &Receiver<Message>,
    look: &mut dyn FnMut() -> Sample,
) -> anyhow::Result<()> {
    look();
    let mut next = Instant::now() + interval;
    while wait(messages, next).is_none() {
        let sample = look();
        let text = if args.json {
            serde_json::to_string(&sample).context("cannot write the sample")? + "\n"
        } else {
            top::table(&sample)
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        if args.once {
            if !args.json {
                tell_unread(&sample);
            }
            break;
        }
        next = following(next, interval);
    }
    Ok(())
}

/// Beside the output, so that it stays what it is.
fn tell_unread(sample: &Sample) {
    for unread in &sample.unread {
        let text = format!("could not read {}: {}", unread.what, unread.why);
        let _ = writeln!(io::stderr(), "observer: {}", crate::render::escape(&text));
    }
}

fn on_screen(
    mut screen: top::Screen,
    interval: Duration,
    sender: Sender<Message>,
    messages: &Receiver<Message>,
    look: &mut dyn FnMut() -> Sample,
) -> anyhow::Result<()> {
    // Whatever ends it, the terminal is put back: `try_init` sets a panic hook that does the same.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let restored = Restored;
    std::thread::Builder::new()
        .name("keys".to_owned())
        .stack_size(256 << 10)
        .spawn(move || read_keys(&sender))?;
    let mut sample = look();
    // Rates need two looks; the second need not wait for a long interval.
    let mut next = Instant::now() + interval.min(Duration::from_secs(1));
    loop {
        terminal.draw(|frame| screen.draw(frame, &sample)).context("cannot draw")?;
        match wait(messages, next) {
            None => {
                sample = look();
                next = following(next, interval);
            }
            Some(Message::Redraw) => {}
            Some(Message::Key(key)) if screen.key(key, &sample) == top::Step::Draw => {}
            Some(Message::Key(_) | Message::End) => break,
        }
    }
    drop(restored);
    Ok(())
}

/// Puts the terminal back when it goes.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        // It may be gone, and then nobody is left to tell.
        let _ = ratatui::try_restore();
    }
}

/// The next message before that moment.
fn wait(messages: &Receiver<Message>, until: Instant) -> Option<Message> {
    match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Message::End),
    }
}

/// The next moment of a steady beat; moments that have passed already (the machine slept, the terminal was paused) are
/// left out.
fn following(last: Instant, interval: Duration) -> Instant {
    let now = Instant::now();
    let next = last + interval;
    if next > now { next } else { now + interval }
}

fn read_keys(sender: &Sender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) => Message::Key(key),
            Ok(Event::Resize(..)) => Message::Redraw,
            Ok(_) => continue,
            // The terminal is gone.
            Err(_) => Message::End,
        };
        let end = matches!(message, Message::End);
        if sender.send(message).is_err() || end {
            return;
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP end the loop between two looks; the exit code is 0: a reader that has seen enough is no
/// failure.
fn end_on_signal(sender: Sender<Message>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    // Installed before this returns, so that none is missed.
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(128 << 10).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        let _ = sender.send(Message::End);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, seconds) in [
            ("2", Some(2.0)),
            ("0.1", Some(0.1)),
            ("3600", Some(3600.0)),
            ("0", None),
            ("-1", None),
            ("0.09", None),
            ("3601", None),
            ("NaN", None),
            ("inf", None),
            ("2s", None),
            ("", None),
        ] {
            assert_eq!(interval(text).ok(), seconds, "{text:?}");
        }
    }

    #[test]
    fn a_beat_is_steady_and_does_not_catch_up() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(following(now, second), now + second);
        let late = now.checked_sub(Duration::from_secs(60)).expect("up for a minute");
        assert!(following(late, second) >= now + second);
    }

    #[test]
    fn waiting_ends_with_time_a_message_or_the_last_sender() {
        let (sender, messages) = mpsc::channel();
        assert!(wait(&messages, Instant::now()).is_none());
        sender.send(Message::Redraw).expect("a receiver");
        assert!(matches!(wait(&messages, Instant::now() + Duration::from_secs(60)), Some(Message::Redraw)));
        drop(sender);
        assert!(matches!(wait(&messages, Instant::now() + Duration::from_secs(60)), Some(Message::End)));
    }
}
