//! The local API: a Unix socket for root, see [`super::protocol`].

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::{Semaphore, mpsc, oneshot},
};

use super::{
    Fanout, Filter, Running, Sink, SinkError, Start, Subscription, TailItem,
    protocol::{Ask, Line, MAX_REQUEST, Question, Request},
};
use crate::{
    render::Untrusted,
    telemetry::{log, metrics::SinkMetrics},
};

pub(super) const SINK: Sink = Sink { name: "socket", start };

const MAX_CLIENTS: usize = 32;
/// A client says what it wants within this.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// The pipeline answers within this, or is not asked again.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Lines are put together up to this size, or until nothing more is queued.
const BATCH: usize = 64 << 10;
/// Items looked at in one go, so that a filter that lets nothing through does not keep the others waiting.
const BATCH_ITEMS: usize = 1024;

fn start(start: &Start<'_>) -> Result<Running, SinkError> {
    let path = &start.config.socket.path;
    let listener =
        bind(path).map_err(|error| SinkError::Socket { path: path.clone(), what: error.to_string() })?;
    let (guard, done) = mpsc::channel(1);
    let server = Server {
        path: path.clone(),
        inode: fs::symlink_metadata(path).map(|it| it.ino()).ok(),
        fanout: start.fanout.clone(),
        metrics: start.metrics.sink(SINK.name, false),
        guard,
    };
    tokio::spawn(server.run(listener));
    Ok(Running { done })
}

/// Takes the path, for root only from its first moment: the directory, if it has to be made, lets nobody else in,
/// and every client is asked by the kernel who it is.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().ok_or_else(|| io::Error::other("is not a file's path"))?;
    if !directory.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Whoever could put another socket in this one's place could lie to its clients.
    let (meta, me) = (fs::metadata(directory)?, own_uid());
    let open_to_others = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
    if open_to_others || ![0, me].contains(&meta.uid()) {
        return Err(io::Error::other("others than root can write to its directory"));
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::other("is there, and is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::other("another observer answers on it")),
            // Left behind by one that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn own_uid() -> u32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

struct Server {
    path: PathBuf,
    /// The socket's own, to remove no other one at the end.
    inode: Option<u64>,
    fanout: Fanout,
    metrics: SinkMetrics,
    /// Held until the end by the server and each of its clients.
    guard: mpsc::Sender<()>,
}

impl Server {
    async fn run(self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.fanout.closed() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::debug!("cannot accept a client on the socket", error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match self.admit(&stream, &places) {
                Ok(place) => {
                    let client = Client {
                        fanout: self.fanout.clone(),
                        metrics: self.metrics.clone(),
                        guard: self.guard.clone(),
                    };
                    tokio::spawn(async move {
                        client.serve(stream).await;
                        drop(place);
                    });
                }
                Err(reason) => {
                    let mut line = Vec::new();
                    Line::Error(reason).write_to(&mut line);
                    // It fits the empty buffer of a new connection.
                    let _ = stream.try_write(&line);
                }
            }
        }
        if self.inode.is_some() && fs::symlink_metadata(&self.path).map(|it| it.ino()).ok() == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn admit(
        &self,
        stream: &UnixStream,
        places: &Arc<Semaphore>,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, &'static str> {
        match stream.peer_cred() {
            Ok(peer) if [0, own_uid()].contains(&peer.uid()) => {}
            _ => return Err("this socket is for root"),
        }
        Arc::clone(places).try_acquire_owned().map_err(|_| "too many clients")
    }
}

struct Client {
    fanout: Fanout,
    metrics: SinkMetrics,
    #[expect(dead_code, reason = "held until the client has got everything")]
    guard: mpsc::Sender<()>,
}

impl Client {
    async fn serve(self, stream: UnixStream) {
        let (mut from, mut to) = stream.into_split();
        let request = match tokio::time::timeout(REQUEST_TIME, read_request(&mut from)).await {
            Ok(Ok(request)) => request,
            Ok(Err(reason)) => return refuse(&mut to, &reason).await,
            Err(_) => return refuse(&mut to, "no request came in time").await,
        };
        let request = match request {
            Request::Ask(Ask { ask: Question::Membership }) => {
                return match answered(self.fanout.ask_membership()).await {
                    Ok(answer) => say(&mut to, &Line::Membership(&answer)).await,
                    Err(reason) => refuse(&mut to, reason).await,
                };
            }
            Request::Ask(Ask { ask: Question::Observed }) => {
                return match answered(self.fanout.ask_observed()).await {
                    Ok(answer) => say(&mut to, &Line::Observed(&answer)).await,
                    Err(reason) => refuse(&mut to, reason).await,
                };
            }
            Request::Subscribe(request) => request,
        };
        let mut subscription = self.fanout.subscribe(request.subscribe, request.recent, self.metrics.clone());
        let mut batch = Vec::new();
        Line::Subscribed(request.subscribe).write_to(&mut batch);
        let mut alerts = 0;
        loop {
            if to.write_all(&batch).await.is_err() {
                return;
            }
            self.metrics.written(alerts);
            batch.clear();
            batch.shrink_to(BATCH);
            alerts = match next_batch(&mut subscription, &mut from, &request.filter, &mut batch).await {
                Some(alerts) => alerts,
                None => return,
            };
        }
    }
}

/// Waits for the pipeline's answer to a question.
async fn answered<T>(asked: oneshot::Receiver<Arc<T>>) -> Result<Arc<T>, &'static str> {
    match tokio::time::timeout(ANSWER_TIME, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err("the agent is ending"),
        Err(_) => Err("the pipeline is too busy to answer"),
    }
}

async fn say(to: &mut (impl AsyncWriteExt + Unpin), line: &Line<'_>) {
    let mut text = Vec::new();
    line.write_to(&mut text);
    // Who has gone does not hear it.
    let _ = to.write_all(&text).await;
}

/// Waits for something, and takes what has come by then; returns how many alerts are in it. `None` at the end of
/// either side.
async fn next_batch(
    subscription: &mut Subscription,
    from: &mut OwnedReadHalf,
    filter: &Filter,
    batch: &mut Vec<u8>,
) -> Option<u64> {
    let mut ignored = [0; 64];
    let first = loop {
        tokio::select! {
            item = subscription.recv() => break item?,
            // Nothing more is expected from the client but its end.
            read = from.read(&mut ignored) => if read.unwrap_or(0) == 0 { return None },
        }
    };
    let mut alerts = add(batch, &first, filter);
    for _ in 1..BATCH_ITEMS {
        if batch.len() >= BATCH {
            break;
        }
        let Ok(item) = subscription.try_recv() else { break };
        alerts += add(batch, &item, filter);
    }
    Some(alerts)
}

fn add(batch: &mut Vec<u8>, item: &TailItem, filter: &Filter) -> u64 {
    match item {
        TailItem::Alert(alert) if filter.passes_alert(alert) => {
            Line::Alert(alert).write_to(batch);
            return 1;
        }
        TailItem::Event(event) if filter.passes_event(event) => Line::Event(event).write_to(batch),
        TailItem::Missed(count) => Line::Missed(*count).write_to(batch),
        TailItem::Alert(_) | TailItem::Event(_) => {}
    }
    0
}

async fn refuse(to: &mut (impl AsyncWriteExt + Unpin), reason: &str) {
    let mut line = Vec::new();
    Line::Error(reason).write_to(&mut line);
    let _ = to.write_all(&line).await;
}

async fn read_request(from: &mut OwnedReadHalf) -> Result<Request, String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 512];
    let end = loop {
        match from.read(&mut chunk).await {
            Ok(0) => return Err("no request came".to_owned()),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) => return Err(error.to_string()),
        }
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            break end;
        }
        if bytes.len() > MAX_REQUEST {
            return Err(format!("a request is at most {MAX_REQUEST} bytes long"));
        }
    };
    Request::parse(&bytes[..end]).map_err(|error| Untrusted(&error.to_string(), 200).to_string())
}

#[cfg(test)]
mod tests;
