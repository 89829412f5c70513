//! As much of gRPC as a question and an answer need (grpc: doc/PROTOCOL-HTTP2.md), over HTTP/2 on a Unix socket.
//!
//! `h2` does HTTP/2; what gRPC adds to it for one message each way is five bytes before each message and a status after
//! it. A whole gRPC library would bring a connection pool, load balancing and interceptors: twice the packages, for
//! nothing that is needed here.
//!
//! This file stands by itself, without the rest of the agent: the live tests' pods are made with it, too.

use std::{io, path::Path};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    task::AbortHandle,
};

/// Of headers and trailers.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// What the other side may send before it waits for us to have read it.
const WINDOW_BYTES: u32 = 256 << 10;
/// Kept of the reason that comes with a status.
const MAX_REASON_CHARS: usize = 200;
/// The compression flag and the length.
const PREFIX_BYTES: usize = 5;

/// The method is not known there (grpc: doc/statuscodes.md).
pub const UNIMPLEMENTED: u32 = 12;
/// Those after which a question may be repeated (opentelemetry: docs/specs/otlp.md): cancelled, deadline exceeded, resource
/// exhausted, aborted, out of range, unavailable, data loss.
pub const UNAVAILABLE_CODES: [u32; 7] = [1, 4, 8, 10, 11, 14, 15];

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
    /// The other side's own answer: a status other than 0, with its words.
    #[error("status {code}: {reason}")]
    Status { code: u32, reason: String },
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("no gRPC: {0}")]
    Malformed(&'static str),
    #[error("the answer is not as expected: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// A connection. Nothing in here has a time limit: whoever calls sets one around it.
#[derive(Debug)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    driver: AbortHandle,
    /// What stands before a method in its URL.
    base: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Needs a tokio runtime: a task of it moves what the connection sends and receives.
    ///
    /// # Errors
    /// [`GrpcError::Connect`] if nobody listens there, [`GrpcError::Http2`] if that is no HTTP/2.
    pub async fn open(socket: &Path) -> Result<Self, GrpcError> {
        let stream = UnixStream::connect(socket).await.map_err(GrpcError::Connect)?;
        Connection::over(stream, "http://localhost".to_owned()).await
    }

    /// The same over a stream that is open; `base` is the scheme and authority that the other side is to be called by.
    ///
    /// # Errors
    /// [`GrpcError::Http2`] if that is no HTTP/2.
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
        base: String,
    ) -> Result<Self, GrpcError> {
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .handshake(stream)
            .await?;
        // How it ends, the requests on it are told.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { requests, driver, base })
    }

    /// Sends `question` to `method` (`/SERVICE/METHOD`) and gives what comes back: one message of at most `limit_bytes`.
    ///
    /// # Errors
    /// Any [`GrpcError`] but [`GrpcError::Connect`].
    pub async fn ask<A: Message + Default>(
        &self,
        method: &'static str,
        question: &impl Message,
        limit_bytes: usize,
    ) -> Result<A, GrpcError> {
        self.ask_with(method, &http::HeaderMap::new(), question, limit_bytes).await
    }

    /// The same with headers besides.
    ///
    /// # Errors
    /// Any [`GrpcError`] but [`GrpcError::Connect`].
    pub async fn ask_with<A: Message + Default>(
        &self,
        method: &'static str,
        headers: &http::HeaderMap,
        question: &impl Message,
        limit_bytes: usize,
    ) -> Result<A, GrpcError> {
        let mut request = http::Request::post(format!("{}{method}", self.base))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("observer/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|_| GrpcError::Malformed("no such method name"))?;
        request.headers_mut().extend(headers.clone());
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(framed(question)?, true)?;
        let response = response.await?;
        if response.status() != http::StatusCode::OK {
            return Err(GrpcError::Malformed("an HTTP status other than 200"));
        }
        // A refusal may come without a body: its status is in the headers then.
        if response.headers().contains_key("grpc-status") {
            check_status(response.headers())?;
        }
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            if answer.len() + part.len() > limit_bytes.saturating_add(PREFIX_BYTES) {
                return Err(GrpcError::TooLarge { limit_bytes });
            }
            body.flow_control().release_capacity(part.len())?;
            answer.extend_from_slice(&part);
        }
        match body.trailers().await? {
            Some(trailers) => check_status(&trailers)?,
            None => return Err(GrpcError::Malformed("no status at the end")),
        }
        Ok(A::decode(message(answer.freeze(), limit_bytes)?)?)
    }
}

/// A message as it goes over the wire.
///
/// # Errors
/// [`GrpcError::TooLarge`] for one of 4 GiB.
fn framed(message: &impl Message) -> Result<Bytes, GrpcError> {
    let bytes = message.encode_to_vec();
    let length =
        u32::try_from(bytes.len()).map_err(|_| GrpcError::TooLarge { limit_bytes: u32::MAX as usize })?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + bytes.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.extend_from_slice(&bytes);
    Ok(framed.freeze())
}

/// The only message in `body`.
fn message(mut body: Bytes, limit_bytes: usize) -> Result<Bytes, GrpcError> {
    let (Ok(compressed), Ok(length)) = (body.try_get_u8(), body.try_get_u32()) else {
        return Err(GrpcError::Malformed("an answer without a message"));
    };
    // We have not said that we understand any compression.
    if compressed != 0 {
        return Err(GrpcError::Malformed("a compressed answer"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > limit_bytes {
        return Err(GrpcError::TooLarge { limit_bytes });
    }
    if length != body.len() {
        return Err(GrpcError::Malformed("an answer of another length than it says"));
    }
    Ok(body)
}

fn check_status(headers: &http::HeaderMap) -> Result<(), GrpcError> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match text("grpc-status").and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            let reason = text("grpc-message").unwrap_or_default();
            Err(GrpcError::Status { code, reason: reason.chars().take(MAX_REASON_CHARS).collect() })
        }
        None => Err(GrpcError::Malformed("no status at the end")),
    }
}
