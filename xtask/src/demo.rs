//! `cargo xtask demo`: a container breaks out of its namespaces, and observer says so.
//!
//! Everything is made for the occasion, the victim on the host included, and everything is removed again, also
//! after an error or Ctrl-C: each part cleans up when it is dropped, and every wait looks for the interrupt.

mod agent;
pub mod container;
mod json;
mod lesson;

use crate::{
    build,
    setup::{self, Purpose},
    shell,
};
use agent::Agent;
use anyhow::{Context, Result, bail};
use container::Container;
use std::{
    fs,
    io::{self, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

#[derive(clap::Args)]
pub struct Args {
    /// The agent to show, instead of a new release build
    #[arg(long, value_name = "FILE", hide = true)]
    agent: Option<PathBuf>,
}

/// How long each thing that the demo waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub fn verb(args: &Args) -> Result<()> {
    let agent = if let Some(agent) = &args.agent {
        agent.clone()
    } else {
        setup::ensure(Purpose::Demo)?;
        build::release()?;
        shell::observer()
    };
    if !shell::is_root() {
        // Started anew, with the agent named, so that nothing is built (and owned) by root.
        let this = std::env::current_exe()?;
        let mut again = shell::as_root(&this, "to start a container and load observer's probes")?;
        return Err(again.args(["demo", "--agent"]).arg(agent).exec()).context("cannot start sudo");
    }
    catch_interrupts();
    // The error belongs on a line of its own.
    play(&agent).inspect_err(|_| println!())
}

fn play(agent: &Path) -> Result<()> {
    let scratch = Scratch::new()?;
    let name = format!("observer-demo-{}", process::id());
    say(&format!("{}\n", lesson::OPENING))?;

    say(&format!("1. Starting a container named {name} ..."))?;
    let container = Container::start(&name, &scratch.0)?;
    say(&format!(" its first process has pid {}.\n{}", container.pid, lesson::THE_CONTAINER))?;

    say("2. Starting a process on the host, outside any container ...")?;
    let host = HostProcess::start()?;
    say(&format!(" a sleep, pid {}.\n", host.0.id()))?;

    say("3. Starting observer ...")?;
    let begin = Instant::now();
    let mut agent = Agent::start(agent, &scratch.0)?;
    agent.wait_until_ready()?;
    say(&format!(" ready after {:.1} s.\n", begin.elapsed().as_secs_f64()))?;

    let pid = host.0.id().to_string();
    let escape = ["nsenter", "-t", &pid, "-m", "-n", "-u", "-i", "sh", "-c", "true"];
    say(&format!("4. In the container, somebody runs:\n\n       {}\n\n", escape.join(" ")))?;
    let begin = Instant::now();
    container.exec(&escape)?;
    let alert = agent.wait_for_alert("namespace.escape", &name)?;
    say(&format!(
        "   {:.0} ms after the command was started, observer wrote this alert (in its output it is one line):\n\n",
        begin.elapsed().as_secs_f64() * 1000.0
    ))?;
    say(&format!("{}\n\n", json::pretty(&alert)))?;
    say(&lesson::explain(&serde_json::from_str(&alert).context("the alert is not JSON")?))?;

    drop((agent, host, container, scratch));
    say("Everything that this demo made is gone again.\n")
}

/// Prints at once, so that the reader sees what is being waited for.
fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to the standard output")
}

/// A directory for everything that the demo writes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("observer-demo-{}", process::id()));
        // Fails if the name is taken, so nobody can have laid a trap under it.
        fs::DirBuilder::new().mode(0o700).create(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("left behind: {} ({error})", self.0.display());
        }
    }
}

/// The victim: a process of the host that lends its namespaces to whoever asks. PID 1 would do, but what has been
/// started for the purpose cannot be harmed.
struct HostProcess(Child);

impl HostProcess {
    fn start() -> Result<Self> {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        Ok(Self(sleep.spawn().context("cannot start sleep")?))
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        // It can only have ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `ready` has something, the demo is interrupted, or patience has run out.
fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(it) = ready()? {
            return Ok(it);
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted while waiting for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("waited {} s in vain for {what}", PATIENCE.as_secs())
}

/// From here on Ctrl-C, a closed terminal and a polite kill only set `INTERRUPTED`. The demo's own children are in
/// process groups of their own, so that a Ctrl-C does not end them before it is their turn.
fn catch_interrupts() {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let note: extern "C" fn(libc::c_int) = note;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler has the type that signal() asks for, lives for ever, and does nothing but store to an
        // atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, note as libc::sighandler_t) };
    }
}
