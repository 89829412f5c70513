//! What the listing verbs have in common: how they look, and how they tell.

use std::io::{self, Write};

use anyhow::Context;

use super::{Global, agent};
use crate::{
    app,
    config::{Config, HostNamespaces},
    host::{self, Hierarchy, ProcFacts, Roots, cri::Sockets},
    inventory::{self, Look, Membership, Source, Wanted},
    model::{Observed, syscall},
    render::{Colours, Surface, Untrusted},
};

/// Options of every listing verb.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// One JSON document
    #[arg(long)]
    pub json: bool,
    /// Do not ask the running agent; find out which process is whose by looking
    #[arg(long)]
    pub no_agent: bool,
    /// No colours
    #[arg(long)]
    pub no_color: bool,
}

impl Options {
    /// Where the output goes.
    pub fn surface(&self) -> Surface {
        let surface = Surface::of(&io::stdout());
        if self.no_color { Surface { colours: Colours::OFF, ..surface } } else { surface }
    }
}

/// Finds out, once or again and again, which process is whose.
pub struct Looker {
    config: Config,
    pub roots: Roots,
    pub hierarchies: Vec<Hierarchy>,
    no_agent: bool,
    /// An agent that does not answer is told of once.
    told: bool,
}

/// One answer.
pub struct Answer {
    pub membership: Membership,
    source: Source,
    scanned: Option<Vec<ProcFacts>>,
    /// The host's namespaces are pid 1's, not merely our own.
    host_known: bool,
}

impl Looker {
    pub fn new(no_agent: bool, global: &Global) -> anyhow::Result<Looker> {
        let config = global.config()?;
        let roots = app::roots(&config);
        let hierarchies =
            host::hierarchies(&roots.proc, &roots.cgroup).context("cannot read the cgroup hierarchies")?;
        Ok(Looker { config, roots, hierarchies, no_agent, told: false })
    }

    /// Asks the agent; where none runs, or it does not answer, looks itself.
    pub fn ask(&mut self) -> anyhow::Result<Answer> {
        let stream = if self.no_agent { None } else { agent::connect(&self.config.socket.path)? };
        match stream.map(agent::membership) {
            Some(Ok(membership)) => {
                return Ok(Answer { membership, source: Source::Agent, scanned: None, host_known: true });
            }
            Some(Err(error)) if !self.told => {
                self.told = true;
                agent::say(&format!("{error:#}; looking without it"));
            }
            _ => {}
        }
        let sockets = Sockets::new(self.config.host.cri_sockets.as_deref(), &self.roots.run).present();
        let own = self.config.host_namespaces == HostNamespaces::Own;
        let (membership, scanned, host_known) =
            inventory::by_scan(&self.roots, &self.config.node_name(), own, &self.hierarchies, &sockets)
                .context("cannot read /proc")?;
        Ok(Answer { membership, source: Source::Scan, scanned: Some(scanned), host_known })
    }
}

/// What the agent has seen containers do; `None` where no agent is asked.
pub fn observed(options: &Options, global: &Global) -> anyhow::Result<Option<Observed>> {
    if options.no_agent {
        return Ok(None);
    }
    let Some(stream) = agent::connect(&global.config()?.socket.path)? else { return Ok(None) };
    agent::observed(stream).map(Some)
}

/// The calls that the threads of this container are in.
pub fn add_present_calls(
    observed: &mut Observed,
    global: &Global,
    look: &Look,
    id: &str,
) -> anyhow::Result<()> {
    let container = observed.containers.iter_mut().find(|container| container.id == id);
    let Some(container) = container.filter(|_| observed.syscalls) else { return Ok(()) };
    let proc = global.config()?.host.proc;
    let mut names = std::collections::BTreeSet::from_iter(container.syscalls.drain(..));
    for process in look.processes.iter().filter(|process| process.container.as_deref() == Some(id)) {
        match host::present_calls(&proc, process.pid, process.start_ticks) {
            Ok(calls) => names.extend(calls.iter().map(|nr| syscall::label(nr).into_owned())),
            Err(error) => {
                agent::say(&format!("the calls that its threads are in may be missing: {error}"));
                break;
            }
        }
    }
    container.syscalls.extend(names);
    Ok(())
}

/// Looks.
pub fn look(options: &Options, global: &Global, wanted: Wanted) -> anyhow::Result<Look> {
    let mut looker = Looker::new(options.no_agent, global)?;
    let Answer { membership, source, scanned, host_known } = looker.ask()?;
    let mut look =
        inventory::collect(membership, source, scanned, &looker.roots, &looker.hierarchies, wanted)
            .context("cannot read /proc")?;
    if !host_known {
        look.unread(
            "the host's namespaces",
            "/proc/1/ns may not be read; those of this command are taken for them",
        );
    }
    Ok(look)
}

/// Tells on stderr what could not be read, so that the output stays what it is.
pub fn tell_unread(look: &Look) {
    for unread in &look.unread {
        let times = if unread.count > 1 { format!(" ({} times)", unread.count) } else { String::new() };
        agent::say(&format!(
            "not known: {}: {}{times}",
            Untrusted(&unread.what, 200),
            Untrusted(&unread.why, 200)
        ));
    }
}

/// Writes the text, or the document.
pub fn write(
    options: &Options,
    document: &impl serde::Serialize,
    text: impl FnOnce(Surface) -> String,
) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut stdout, document)?;
        stdout.write_all(b"\n")?;
    } else {
        stdout.write_all(text(options.surface()).as_bytes())?;
    }
    stdout.flush()?;
    Ok(())
}
