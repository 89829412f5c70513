//! What the listing verbs have in common: how they look, and how they tell.

use std::io::{self, Write};

use anyhow::Context;

use super::{Global, agent};
use crate::{
    app,
    config::HostNamespaces,
    host,
    inventory::{self, Look, Source, Wanted},
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

/// Looks. Without an agent, or if that does not answer, by a scan.
pub fn look(options: &Options, global: &Global, wanted: Wanted) -> anyhow::Result<Look> {
    let config = global.config()?;
    let roots = app::roots(&config);
    let hierarchies = host::hierarchies(&roots.proc, &roots.cgroup).context("cannot read the cgroup hierarchies")?;
    let stream = if options.no_agent { None } else { agent::connect(&config.socket.path)? };
    let asked = stream.map(agent::membership);
    let (membership, source, scanned, host_known) = match asked {
        Some(Ok(membership)) => (membership, Source::Agent, None, true),
        other => {
            if let Some(Err(error)) = other {
                agent::say(&format!("{error:#}; looking without it"));
            }
            let own = config.host_namespaces == HostNamespaces::Own;
            let (membership, scanned, host_known) =
                inventory::by_scan(&roots, &config.node_name(), own, &hierarchies).context("cannot read /proc")?;
            (membership, Source::Scan, Some(scanned), host_known)
        }
    };
    let mut look = inventory::collect(membership, source, scanned, &roots, &hierarchies, wanted)
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
        agent::say(&format!("not known: {}: {}{times}", Untrusted(&unread.what, 200), Untrusted(&unread.why, 200)));
    }
}

/// Writes the text, or the document.
pub fn write(options: &Options, document: &impl serde::Serialize, text: impl FnOnce(Surface) -> String) -> anyhow::Result<()> {
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
