//! `/metrics`, `/healthz` and `/readyz`, by default on loopback only.
//!
//! Anyone on the node can connect, a container with the host's network included, and the answers decide whether the
//! kubelet restarts the agent. So nobody can wait it out: a connection carries one request and lives for at most
//! `CONNECTION_LIFE`, and of more than `MAX_CONNECTIONS` the oldest is closed, never the newest refused.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::Sleep,
};

use super::Metrics;

const CONNECTION_LIFE: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 64;
/// A pipeline that has not moved for so long is taken for stuck.
const HEARTBEAT_AGE: Duration = Duration::from_secs(10);

/// Whether the agent is armed, and whether its pipeline still moves.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<HealthInner>,
}

#[derive(Debug)]
struct HealthInner {
    started: Instant,
    ready: AtomicBool,
    /// Of the last beat, ms after `started`.
    beat_ms: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Health::new()
    }
}

impl Health {
    /// Not ready; the time until the first beat counts from now.
    pub fn new() -> Health {
        let inner = HealthInner {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            beat_ms: AtomicU64::new(0),
        };
        Health { inner: Arc::new(inner) }
    }

    /// Armed: the hooks are attached and the scan at start is done.
    pub fn set_ready(&self, ready: bool) {
        self.inner.ready.store(ready, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Relaxed)
    }

    /// The pipeline calls this at least once a second.
    pub fn beat(&self) {
        let now = self.inner.started.elapsed().as_millis() as u64;
        self.inner.beat_ms.store(now, Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub fn beat_age(&self) -> Duration {
        let beat = Duration::from_millis(self.inner.beat_ms.load(Ordering::Relaxed));
        self.inner.started.elapsed().saturating_sub(beat)
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {source}")]
pub struct HttpError {
    address: SocketAddr,
    source: io::Error,
}

/// Takes the address; the answers begin with [`Server::run`]. Needs a tokio runtime.
pub async fn bind(address: SocketAddr) -> Result<Server, HttpError> {
    let listener = TcpListener::bind(address).await.map_err(|source| HttpError { address, source })?;
    let local_address = listener.local_addr().map_err(|source| HttpError { address, source })?;
    Ok(Server { listener, local_address })
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_address: SocketAddr,
}

impl Server {
    /// With the port that the kernel chose, if it was asked to choose.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Answers until `end` is ready.
    pub async fn run(self, metrics: Metrics, health: Health, end: impl Future<Output = ()> + Send + 'static) {
        let listener = Bounded { listener: self.listener, alive: VecDeque::new() };
        // Accepting never ends by itself, and what a connection does concerns nobody else: there is no error.
        let _ = axum::serve(listener, router(metrics, health)).with_graceful_shutdown(end).await;
    }
}

fn router(metrics: Metrics, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state((metrics, health))
        // One request per connection, see above.
        .layer(axum::middleware::map_response(|answer: Response| async {
            ([(header::CONNECTION, "close")], answer)
        }))
}

async fn metrics_page(State((metrics, health)): State<(Metrics, Health)>) -> Response {
    let kind = (header::CONTENT_TYPE, prometheus::TEXT_FORMAT);
    ([kind], metrics.expose(health.is_ready())).into_response()
}

async fn healthz(State((_, health)): State<(Metrics, Health)>) -> Response {
    let age = health.beat_age();
    if age < HEARTBEAT_AGE {
        "ok\n".into_response()
    } else {
        let reason = format!("the pipeline has not moved for {} s\n", age.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
    }
}

async fn readyz(State((_, health)): State<(Metrics, Health)>) -> Response {
    if health.is_ready() {
        "ok\n".into_response()
    } else {
        let reason = "not armed: the hooks are not attached yet, or the scan at start is not done\n";
        (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
    }
}

/// Accepts without end, and closes the oldest connection where there would be too many.
struct Bounded {
    listener: TcpListener,
    /// Oldest first; dropping one closes its connection.
    alive: VecDeque<oneshot::Sender<()>>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.alive.retain(|connection| !connection.is_closed());
                    while self.alive.len() >= MAX_CONNECTIONS {
                        self.alive.pop_front();
                    }
                    let (keep, evicted) = oneshot::channel();
                    self.alive.push_back(keep);
                    let life = Box::pin(tokio::time::sleep(CONNECTION_LIFE));
                    return (Connection { stream, evicted, life, over: false }, address);
                }
                // Most likely out of file descriptors: the connection stays in the backlog, so do not spin.
                Err(error) => {
                    super::log::debug!("cannot accept an HTTP connection", error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends with an error when its time is over or its place is needed.
struct Connection {
    stream: TcpStream,
    evicted: oneshot::Receiver<()>,
    life: Pin<Box<Sleep>>,
    over: bool,
}

impl Connection {
    fn poll_alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        // A oneshot channel must not be asked again once it has answered.
        self.over = self.over
            || self.life.as_mut().poll(context).is_ready()
            || Pin::new(&mut self.evicted).poll(context).is_ready();
        if self.over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn started() -> (SocketAddr, Health, oneshot::Sender<()>) {
        let server = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a loopback port");
        let (address, health, (end, ended)) =
            (server.local_address(), Health::new(), oneshot::channel::<()>());
        let run = server.run(Metrics::new(), health.clone(), async {
            let _ = ended.await;
        });
        tokio::spawn(run);
        (address, health, end)
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = String::new();
        // Ends although the client asked to keep the connection.
        stream.read_to_string(&mut answer).await.expect("answer");
        let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test);
    }

    #[test]
    fn says_when_it_is_armed_and_alive() {
        run(async {
            let (address, health, _end) = started().await;
            assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
            assert_eq!(get(address, "/readyz").await.0, 503);
            assert_eq!(get(address, "/").await.0, 404);
            health.set_ready(true);
            assert_eq!(get(address, "/readyz").await, (200, "ok\n".to_owned()));
            let (status, body) = get(address, "/metrics").await;
            assert!(status == 200 && body.contains("\nobserver_ready 1\n"), "{body}");
        });
    }

    #[test]
    fn a_pipeline_that_stands_still_is_unhealthy() {
        run(async {
            let (address, health, _end) = started().await;
            let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(30)) else { return };
            let inner =
                HealthInner { started: long_ago, ready: AtomicBool::new(true), beat_ms: AtomicU64::new(0) };
            let stuck = Health { inner: Arc::new(inner) };
            assert!(stuck.beat_age() >= HEARTBEAT_AGE);
            stuck.beat();
            assert!(stuck.beat_age() < HEARTBEAT_AGE);
            stuck.inner.beat_ms.store(5_000, Ordering::Relaxed);
            let answer = healthz(State((Metrics::new(), stuck))).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(get(address, "/healthz").await.0, 200);
            drop(health);
        });
    }

    #[test]
    fn idle_connections_keep_nobody_out() {
        run(async {
            let (address, _health, _end) = started().await;
            let mut idle = Vec::new();
            for _ in 0..MAX_CONNECTIONS * 2 {
                let mut stream = TcpStream::connect(address).await.expect("connect");
                stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("half a request");
                idle.push(stream);
            }
            assert_eq!(get(address, "/healthz").await.0, 200);
            // The oldest were closed for it.
            let mut first = idle.swap_remove(0);
            let mut rest = Vec::new();
            let closed = tokio::time::timeout(Duration::from_secs(5), first.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "the oldest idle connection is still open");
        });
    }
}
