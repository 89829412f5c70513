//! The way to the running agent.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{
    inventory::Membership,
    model::Observed,
    render,
    sinks::protocol::{Ask, Question, Received, Request},
};

/// A word to the person at the terminal, beside the output.
pub fn say(words: &str) {
    let _ = writeln!(io::stderr(), "observer: {}", render::escape(words));
}

/// `None` when nobody listens.
pub fn connect(path: &Path) -> anyhow::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("{} is for root", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot connect to {}", path.display())),
    }
}

/// Longer than what any node's containers need: 100,000 processes are 3 MB.
const MAX_ANSWER: u64 = 64 << 20;
/// The agent gives up after 5 s, and says so.
const PATIENCE: Duration = Duration::from_secs(7);

/// Asks which process is whose.
pub fn membership(stream: UnixStream) -> anyhow::Result<Membership> {
    ask(stream, Question::Membership, |received| received.membership)
}

/// Asks what containers were seen to do.
pub fn observed(stream: UnixStream) -> anyhow::Result<Observed> {
    ask(stream, Question::Observed, |received| received.observed)
}

fn ask<T: DeserializeOwned>(
    mut stream: UnixStream,
    question: Question,
    part: impl for<'a> Fn(&Received<'a>) -> Option<&'a RawValue>,
) -> anyhow::Result<T> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Request::Ask(Ask { ask: question }))?;
    line.push(b'\n');
    // An agent that hangs up at once may still have said why.
    let sent = stream.write_all(&line);
    line.clear();
    BufReader::new(stream)
        .take(MAX_ANSWER)
        .read_until(b'\n', &mut line)
        .context("cannot read from the agent")?;
    if line.is_empty() {
        sent.context("the agent did not take the question")?;
        bail!("the agent has ended");
    }
    let received: Received<'_> =
        serde_json::from_slice(&line).context("the agent sent what is no line of its own")?;
    if let Some(reason) = &received.error {
        bail!("the agent refuses: {reason}");
    }
    match part(&received) {
        Some(raw) => serde_json::from_str(raw.get()).context("the agent is of another version"),
        None => bail!("the agent is of another version: it does not know the question"),
    }
}
