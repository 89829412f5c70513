//! The second source of what containers are called: the CRI runtimes themselves, over the Unix sockets on which the kubelet
//! talks to them. What the disk tells comes first; this fills the gaps, where a runtime keeps its state out of sight or a
//! file could not be read.
//!
//! Only lists and versions are asked for: nothing is changed. The other side is the node's own runtime, and still nothing
//! that it does (hang, talk without end, talk nonsense) does more harm than that names are missing.

mod client;
pub(crate) mod grpc;
mod messages;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::HashMap,
    fmt, fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

pub use grpc::GrpcError;
pub use watch::Watch;

use super::{RuntimeFacts, runtime};

/// Below /run: containerd, CRI-O, k3s and rke2, k0s, docker behind cri-dockerd (whose /var/run is the same).
const USUAL: [&str; 5] = [
    "containerd/containerd.sock",
    "crio/crio.sock",
    "k3s/containerd/containerd.sock",
    "k0s/containerd.sock",
    "cri-dockerd.sock",
];

/// Where CRI runtimes are to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    paths: Vec<PathBuf>,
    /// Somebody says that they are there: that one is not is a problem.
    configured: bool,
}

impl Sockets {
    /// Those of the configuration (`host.cri_sockets`); without any, the usual places below `run`.
    pub fn new(configured: Option<&[PathBuf]>, run: &Path) -> Self {
        match configured {
            Some(paths) => Sockets { paths: paths.to_vec(), configured: true },
            None => Sockets { paths: USUAL.map(|path| run.join(path)).to_vec(), configured: false },
        }
    }

    /// Those to ask now: of the usual ones, those that are there.
    pub fn present(&self) -> Vec<PathBuf> {
        self.paths.iter().filter(|path| self.configured || is_socket(path)).cloned().collect()
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The form of all CRI runtimes' ids: 32 random bytes in hexadecimal (containerd: internal/cri/util/id.go; CRI-O:
/// containers/storage, pkg/stringid; docker the same).
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Why a socket told nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("more containers than the {limit} that are taken, or more text", limit = client::MAX_ENTRIES)]
    Cut,
    #[error("cannot ask: {0}")]
    Start(io::Error),
}

impl CriError {
    /// Somebody listens there and offers no CRI, as a containerd does that only docker uses.
    pub fn is_no_cri(&self) -> bool {
        matches!(self, CriError::Grpc(GrpcError::Status { code: grpc::UNIMPLEMENTED, .. }))
    }

    fn is_not_there(&self) -> bool {
        matches!(self, CriError::Grpc(GrpcError::Connect(error)) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A socket that told nothing, or not all. Its text is safe for a terminal.
#[derive(Debug)]
pub struct Problem {
    pub socket: PathBuf,
    pub error: CriError,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::render::escape(&format!("{}: {}", self.socket.display(), self.error)))
    }
}

impl std::error::Error for Problem {}

/// What all these runtimes know, by id, and which of them could not be asked. Takes no longer than `timeout`, and may be called
/// anywhere: it asks on a thread of its own. For who wants an answer now; the agent has a [`Watch`].
pub fn ask_all(sockets: &[PathBuf], timeout: Duration) -> (HashMap<String, RuntimeFacts>, Vec<Problem>) {
    if sockets.is_empty() {
        return Default::default();
    }
    let asked = thread::scope(|scope| {
        let asking = thread::Builder::new().name("cri".into()).spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(ask_each(sockets, timeout)))
        });
        // It does not panic; if it did, nothing would have been answered.
        asking
            .and_then(|asking| asking.join().unwrap_or_else(|_| Err(io::Error::other("ended unexpectedly"))))
    });
    asked.unwrap_or_else(|error| {
        let problem = |socket: &PathBuf| Problem {
            socket: socket.clone(),
            error: CriError::Start(io::Error::new(error.kind(), error.to_string())),
        };
        (HashMap::new(), sockets.iter().map(problem).collect())
    })
}

async fn ask_each(sockets: &[PathBuf], timeout: Duration) -> (HashMap<String, RuntimeFacts>, Vec<Problem>) {
    let asked: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let path = socket.clone();
            (socket, tokio::spawn(async move { ask_in_time(&path, timeout, |_| true).await }))
        })
        .collect();
    let (mut facts, mut problems) = (HashMap::new(), Vec::new());
    for (socket, asked) in asked {
        let mut problem = |error| problems.push(Problem { socket: socket.clone(), error });
        match asked.await {
            Ok(Ok(answer)) => {
                if answer.cut {
                    problem(CriError::Cut);
                }
                // The first that knows a container has the word.
                for (id, found) in answer.facts {
                    facts.entry(id).or_insert(found);
                }
            }
            Ok(Err(error)) => problem(error),
            Err(error) => problem(CriError::Start(io::Error::other(error))),
        }
    }
    (facts, problems)
}

async fn ask_in_time(
    socket: &Path,
    timeout: Duration,
    wants: impl Fn(&str) -> bool,
) -> Result<client::Answer, CriError> {
    match tokio::time::timeout(timeout, client::ask(socket, wants)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CriError::TimedOut(timeout)),
    }
}
