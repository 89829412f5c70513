//! HTTP/1.1 POST, over one connection that is kept.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Failure, tls};
use crate::config::Tls;

/// Of an answer; only an error's first words are of use.
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_REASON_CHARS: usize = 200;
/// Of a header's file.
const MAX_SECRET_BYTES: u64 = 16 << 10;

/// Where to, and with what.
#[derive(Clone, Debug)]
pub struct Target {
    pub uri: Uri,
    pub tls: Tls,
    pub headers: BTreeMap<String, String>,
    pub header_files: BTreeMap<String, PathBuf>,
    pub timeout: Duration,
}

impl Target {
    pub fn host(&self) -> &str {
        // Brackets belong to the URL, not to the address.
        self.uri.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    pub async fn connect(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect((self.host(), self.port()))
            .await
            .map_err(|error| Failure::retry(format!("cannot connect: {error}")))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// All configured headers. Those from files are read each time: tokens are renewed.
    pub fn read_headers(&self) -> Result<HeaderMap, Failure> {
        let mut all = HeaderMap::new();
        let mut add = |name: &str, value: HeaderValue| {
            if let Ok(name) = HeaderName::try_from(name) {
                all.insert(name, value);
            }
        };
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                add(name, value);
            }
        }
        for (name, path) in &self.header_files {
            let mut value = secret(path)?;
            value.set_sensitive(true);
            add(name, value);
        }
        Ok(all)
    }
}

/// A header's value from a file: its first line. Never part of an error.
fn secret(path: &Path) -> Result<HeaderValue, Failure> {
    let at = |error: &dyn std::fmt::Display| Failure::retry(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes))
        .map_err(|error| at(&error))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    if line.is_empty() {
        return Err(at(&"is empty, expected a header's value"));
    }
    HeaderValue::from_bytes(line).map_err(|_| at(&"is no header's value"))
}

/// What goes into a request.
pub struct Body {
    pub content_type: &'static str,
    pub bytes: Vec<u8>,
    pub gzip: bool,
}

pub struct Http {
    target: Target,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    pub fn new(target: Target) -> Self {
        Http { target, connection: None }
    }

    /// Sends it, and waits for the answer; gives its body.
    pub async fn post(&mut self, path: &str, body: Body) -> Result<Bytes, Failure> {
        let timeout = self.target.timeout;
        let result = match tokio::time::timeout(timeout, self.post_now(path, body)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::retry(format!("no answer within {} s", timeout.as_secs()))),
        };
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn post_now(&mut self, path: &str, body: Body) -> Result<Bytes, Failure> {
        let Body { content_type, bytes, gzip } = body;
        let bytes = Bytes::from(if gzip { zip(&bytes).map_err(Failure::retry)? } else { bytes });
        let authority = self.target.uri.authority().map(|it| it.as_str()).unwrap_or_default();
        let mut request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("observer/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, content_type);
        if gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let mut request = request.body(Full::new(bytes)).map_err(Failure::retry)?;
        request.headers_mut().extend(self.target.read_headers()?);
        // The other side may have closed a connection that was not used for long: that is no failure.
        let kept = match self.connection.take() {
            Some(mut connection) => connection.ready().await.is_ok().then_some(connection),
            None => None,
        };
        if let Some(mut connection) = kept {
            match connection.try_send_request(request).await {
                Ok(response) => {
                    self.connection = Some(connection);
                    return judge(response).await;
                }
                Err(mut error) => match error.take_message() {
                    Some(back) => request = back,
                    None => return Err(Failure::retry(error.into_error())),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| Failure::retry(format!("no answer: {error}")))?;
        self.connection = Some(connection);
        judge(response).await
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = self.target.connect().await?;
        if self.target.is_https() {
            let host = self.target.host();
            let stream =
                tls::connect(&self.target.tls, host, &["http/1.1"], stream).await.map_err(Failure::retry)?;
            start(stream).await
        } else {
            start(stream).await
        }
    }
}

async fn start<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (requests, connection) = handshake(TokioIo::new(stream)).await.map_err(Failure::retry)?;
    // It ends with the last request's sender, and how it ends, the requests are told.
    tokio::spawn(async move { drop(connection.await) });
    Ok(requests)
}

async fn judge(response: http::Response<hyper::body::Incoming>) -> Result<Bytes, Failure> {
    let (head, body) = response.into_parts();
    // Read, or the connection cannot be used again.
    let text =
        Limited::new(body, MAX_ANSWER_BYTES).collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    if head.status.is_success() {
        return Ok(text);
    }
    let text = String::from_utf8_lossy(&text);
    let words: String = text.lines().next().unwrap_or_default().chars().take(MAX_REASON_CHARS).collect();
    let why = if words.is_empty() {
        format!("HTTP {}", head.status)
    } else {
        format!("HTTP {}: {words}", head.status)
    };
    let after = head.headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
    Err(failure(head.status, why, after.map(Duration::from_secs)))
}

/// What an answer other than 2xx means for what was sent. Only where it can be about the alert is the alert given up: what is
/// wrong with a token, a right or a URL, somebody mends.
fn failure(status: StatusCode, why: String, after: Option<Duration>) -> Failure {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Failure::Retry { why, after }
        }
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Failure::Denied { why, perhaps: false }
        }
        StatusCode::PAYMENT_REQUIRED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::GONE => Failure::Denied { why, perhaps: true },
        StatusCode::PAYLOAD_TOO_LARGE => Failure::TooLarge { why },
        status if status.is_client_error() => Failure::Rejected { why },
        // 5xx; and redirections, which are not followed: alerts go where they were configured to go, and nowhere else.
        _ => Failure::Retry { why, after },
    }
}

fn zip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_alert_is_given_up() {
        for (codes, expected) in [
            (&[100, 301, 302, 307, 408, 425, 429, 500, 502, 503, 504, 507][..], "retry"),
            (&[401, 407], "denied"),
            (&[402, 403, 404, 405, 410], "denied, perhaps"),
            (&[413], "too large"),
            (&[400, 406, 409, 411, 412, 414, 415, 418, 422, 431], "rejected"),
        ] {
            for code in codes {
                let status = StatusCode::from_u16(*code).expect("a status");
                let got = match failure(status, String::new(), None) {
                    Failure::Retry { .. } => "retry",
                    Failure::Denied { perhaps: false, .. } => "denied",
                    Failure::Denied { perhaps: true, .. } => "denied, perhaps",
                    Failure::TooLarge { .. } => "too large",
                    Failure::Rejected { .. } => "rejected",
                };
                assert_eq!(got, expected, "{code}");
            }
        }
    }
}
