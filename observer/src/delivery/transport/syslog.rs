//! Syslog: RFC 5424 messages over UDP (RFC 5426), TCP with octet counting (RFC 6587), TLS (RFC 5425), or a local socket.
//!
//! None of these acknowledges anything. Over TCP and TLS a batch counts as delivered when the other side's kernel has
//! acknowledged all its bytes and the other side has not hung up by then; what the receiver then does with them is its own.
//! Who does not want us hangs up only after its kernel has acknowledged what we say first: over TLS 1.3 a client is through with
//! the handshake before the server has looked at its certificate, and lists of allowed addresses are looked at after the
//! connection is there. So the first batch on a connection is delivered when nobody has hung up for a moment.

use std::{
    fmt::Write as _,
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, UnixDatagram},
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use super::{Failure, tls};
use crate::{
    config::{Facility, Format, HostPort, SyslogAddress, SyslogSink, Tls},
    delivery::{format, worker::Outgoing},
    model::Severity,
};

/// RFC 5424, 6: the fields' bounds.
const MAX_HOSTNAME: usize = 255;
const MAX_MSGID: usize = 32;
/// What an IP datagram can hold.
const MAX_DATAGRAM: usize = 65_000;
/// How long a receiver that does not want us is given to say so.
const UNWANTED: Duration = Duration::from_millis(500);

pub struct Syslog {
    address: SyslogAddress,
    tls: Tls,
    timeout: Duration,
    format: Format,
    facility: Facility,
    /// As it stands in a message.
    node: String,
    open: Option<Open>,
    /// Something was delivered over it.
    wanted: bool,
}

enum Open {
    Udp(UdpSocket),
    Unix(UnixDatagram),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Syslog {
    pub fn new(config: &SyslogSink, node: &Arc<str>) -> Self {
        Syslog {
            address: config.address.clone(),
            tls: config.tls.clone(),
            timeout: Duration::from_secs(config.timeout_seconds),
            format: config.format,
            facility: config.facility,
            node: printable(node, MAX_HOSTNAME),
            open: None,
            wanted: false,
        }
    }

    pub async fn send(&mut self, part: &[Outgoing]) -> Result<(), Failure> {
        let timeout = self.timeout;
        let result = match tokio::time::timeout(timeout, self.send_now(part)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::retry(format!("not taken within {} s", timeout.as_secs()))),
        };
        if result.is_err() {
            self.open = None;
        }
        result
    }

    async fn send_now(&mut self, part: &[Outgoing]) -> Result<(), Failure> {
        let messages: Vec<Vec<u8>> = part.iter().map(|it| self.message(it)).collect();
        let mut kept = self.open.take();
        if let Some(open) = &mut kept
            && open.stays(Duration::ZERO).await.is_err()
        {
            // What is written then is lost, and the first write does not say so.
            kept = None;
        }
        let mut open = match kept {
            Some(open) => open,
            None => {
                self.wanted = false;
                self.open().await?
            }
        };
        match &mut open {
            Open::Udp(socket) => {
                for message in &messages {
                    let sent = socket.send(message).await;
                    datagram(sent, message.len())?;
                }
            }
            Open::Unix(socket) => {
                for message in &messages {
                    let sent = socket.send(message).await;
                    datagram(sent, message.len())?;
                }
            }
            Open::Tcp(stream) => {
                stream.write_all(&counted(&messages)).await.map_err(Failure::retry)?;
                acknowledged(stream.as_raw_fd()).await?;
            }
            Open::Tls(stream) => {
                stream.write_all(&counted(&messages)).await.map_err(Failure::retry)?;
                stream.flush().await.map_err(Failure::retry)?;
                acknowledged(stream.get_ref().0.as_raw_fd()).await?;
            }
        }
        open.stays(if self.wanted { Duration::ZERO } else { UNWANTED }).await?;
        self.wanted = true;
        self.open = Some(open);
        Ok(())
    }

    async fn open(&self) -> Result<Open, Failure> {
        let at = |error: io::Error| Failure::retry(format!("{}: {error}", self.address));
        match &self.address {
            SyslogAddress::Udp(place) => {
                let peer = tokio::net::lookup_host((place.host.as_str(), place.port))
                    .await
                    .map_err(at)?
                    .next()
                    .ok_or_else(|| Failure::retry(format!("{}: no address", self.address)))?;
                let local = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(local).await.map_err(at)?;
                socket.connect(peer).await.map_err(at)?;
                Ok(Open::Udp(socket))
            }
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound().map_err(at)?;
                socket.connect(path).map_err(at)?;
                Ok(Open::Unix(socket))
            }
            SyslogAddress::Tcp(place) => Ok(Open::Tcp(self.connect(place).await?)),
            SyslogAddress::Tls(place) => {
                let stream = self.connect(place).await?;
                let stream = tls::connect(&self.tls, &place.host, &[], stream)
                    .await
                    .map_err(|why| Failure::retry(format!("{}: {why}", self.address)))?;
                Ok(Open::Tls(Box::new(stream)))
            }
        }
    }

    async fn connect(&self, place: &HostPort) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect((place.host.as_str(), place.port))
            .await
            .map_err(|error| Failure::retry(format!("{}: {error}", self.address)))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn message(&self, outgoing: &Outgoing) -> Vec<u8> {
        let alert = &outgoing.alert;
        let severity: u8 = match alert.severity {
            Severity::Critical => 2,
            Severity::Warning => 4,
            Severity::Notice => 5,
            Severity::Info => 6,
        };
        let time = format::time(&alert.time);
        let mut head = String::new();
        let _ = write!(
            head,
            "<{}>1 {time:.6} {} observer {} {} - ",
            self.facility as u8 * 8 + severity,
            self.node,
            std::process::id(),
            printable(&alert.rule, MAX_MSGID),
        );
        let mut message = head.into_bytes();
        message.extend_from_slice(&format::line(self.format, outgoing));
        message
    }
}

impl Open {
    /// An error if the other side has hung up, or does so within `wait`.
    async fn stays(&mut self, wait: Duration) -> Result<(), Failure> {
        match self {
            Open::Udp(_) | Open::Unix(_) => Ok(()),
            Open::Tcp(stream) => stays(stream, wait).await,
            Open::Tls(stream) => stays(stream, wait).await,
        }
    }
}

async fn stays<S: AsyncRead + Unpin>(stream: &mut S, wait: Duration) -> Result<(), Failure> {
    let until = Instant::now() + wait;
    let mut said = [0; 1024];
    loop {
        // Reads at least once, however short the wait.
        match tokio::time::timeout_at(until, stream.read(&mut said)).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => return Err(Failure::retry("the other side has hung up")),
            // A receiver has nothing to say that we would want to know.
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Failure::retry(format!("the other side has hung up: {error}"))),
        }
    }
}

fn datagram(sent: io::Result<usize>, length: usize) -> Result<(), Failure> {
    match sent {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) || length > MAX_DATAGRAM => {
            Err(Failure::TooLarge { why: format!("{length} bytes do not fit into a datagram") })
        }
        Err(error) => Err(Failure::retry(error)),
    }
}

fn counted(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(messages.iter().map(|it| it.len() + 8).sum());
    for message in messages {
        bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
        bytes.extend_from_slice(message);
    }
    bytes
}

/// Ready when the other side's kernel has everything. The caller sets a bound.
async fn acknowledged(socket: RawFd) -> Result<(), Failure> {
    let mut wait = Duration::from_micros(200);
    loop {
        let (mut unsent, mut error) = (0i32, 0i32);
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the request writes one int (tcp(7), SIOCOUTQ), the option another.
        let failed = unsafe {
            libc::ioctl(socket, libc::TIOCOUTQ, &raw mut unsent) != 0
                || libc::getsockopt(
                    socket,
                    libc::SOL_SOCKET,
                    libc::SO_ERROR,
                    (&raw mut error).cast(),
                    &raw mut length,
                ) != 0
        };
        if failed {
            return Err(Failure::retry(io::Error::last_os_error()));
        }
        if error != 0 {
            return Err(Failure::retry(io::Error::from_raw_os_error(error)));
        }
        if unsent == 0 {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(50));
    }
}

/// As a field of the header takes it: visible ASCII, at least one.
fn printable(text: &str, bound: usize) -> String {
    let field: String =
        text.chars().take(bound).map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, UdpSocket as Receiver},
    };

    use super::*;
    use crate::delivery::format::tests::full;

    fn syslog(address: &str) -> Syslog {
        let text = format!("sinks: [{{type: syslog, name: s, address: \"{address}\"}}]");
        let config = crate::config::Config::parse("t".as_ref(), &text).expect("valid");
        match &config.sinks[0] {
            crate::config::SinkConfig::Syslog(config) => Syslog::new(config, &"node 1".into()),
            other => panic!("{other:?}"),
        }
    }

    fn outgoing() -> Outgoing {
        let alert = full();
        Outgoing { json: serde_json::to_vec(&alert).expect("JSON").into(), alert }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    /// Checks one message, and returns what is left.
    fn check(message: &[u8]) {
        let sent = outgoing();
        let expected = format!(
            "<26>1 2026-01-02T03:04:05.000000Z node_1 observer {} namespace.escape - ",
            std::process::id()
        );
        let text = String::from_utf8(message.to_vec()).expect("UTF-8");
        assert_eq!(text.strip_prefix(&expected), std::str::from_utf8(&sent.json).ok(), "{text}");
    }

    #[test]
    fn a_datagram_is_a_message() {
        let receiver = Receiver::bind("127.0.0.1:0").expect("a port");
        let mut sink = syslog(&format!("udp://{}", receiver.local_addr().expect("its address")));
        block_on(sink.send(&[outgoing()])).expect("sent");
        let mut bytes = [0; 65536];
        let length = receiver.recv(&mut bytes).expect("a datagram");
        check(&bytes[..length]);
    }

    #[test]
    fn a_local_socket_takes_it_too() {
        let path = std::env::temp_dir().join(format!("observer-syslog-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let receiver = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
        let mut sink = syslog(&format!("unix://{}", path.display()));
        block_on(sink.send(&[outgoing()])).expect("sent");
        let mut bytes = [0; 65536];
        let length = receiver.recv(&mut bytes).expect("a message");
        let _ = std::fs::remove_file(&path);
        check(&bytes[..length]);
    }

    /// Two messages, each with its length; then the receiver hangs up, and the next goes over a new connection.
    #[test]
    fn over_tcp_each_message_has_its_length_and_a_hang_up_loses_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sink = syslog(&format!("tcp://{}", listener.local_addr().expect("its address")));
        // It hangs up when they count as delivered, and not before.
        let (hang_up, may_hang_up) = std::sync::mpsc::channel::<()>();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            for count in [2, 1] {
                let (mut stream, _) = listener.accept().expect("a connection");
                for _ in 0..count {
                    let mut length = 0;
                    loop {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).expect("a length");
                        match byte[0] {
                            b' ' => break,
                            digit => length = length * 10 + usize::from(digit - b'0'),
                        }
                    }
                    let mut message = vec![0; length];
                    stream.read_exact(&mut message).expect("a message");
                    all.push(message);
                }
                may_hang_up.recv().expect("told to");
            }
            all
        });
        block_on(async {
            sink.send(&[outgoing(), outgoing()]).await.expect("sent");
            hang_up.send(()).expect("told");
            while sink.open.as_mut().expect("open").stays(Duration::from_millis(5)).await.is_ok() {}
            sink.send(&[outgoing()]).await.expect("sent");
            hang_up.send(()).expect("told");
        });
        let all = reader.join().expect("the reader");
        assert_eq!(all.len(), 3);
        all.iter().for_each(|message| check(message));
    }

    /// As one does that has a list of allowed senders: its kernel has acknowledged everything by then.
    #[test]
    fn who_hangs_up_on_us_has_taken_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sink = syslog(&format!("tcp://{}", listener.local_addr().expect("its address")));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::sleep(Duration::from_millis(100));
                let _ = stream.read(&mut [0; 65536]);
            }
        });
        for _ in 0..2 {
            let Err(Failure::Retry { why, .. }) = block_on(sink.send(&[outgoing()])) else { panic!("sent") };
            assert!(why.starts_with("the other side has hung up"), "{why}");
        }
    }

    /// A server with a certificate for `localhost` that nobody else has signed.
    #[test]
    fn over_tls_the_certificate_must_be_trusted_and_of_that_name() {
        use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};

        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("a server");
        let ca = std::env::temp_dir().join(format!("observer-tls-{}.pem", std::process::id()));
        std::fs::write(&ca, own.cert.pem()).expect("written");
        let received = block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("its address").port();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            let server = tokio::spawn(async move {
                // Those who do not trust it hang up.
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                    let mut bytes = Vec::new();
                    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
                    return bytes;
                }
            });
            let mut stranger = syslog(&format!("tls://localhost:{port}"));
            stranger.tls.ca = Some("/nonexistent.pem".into());
            let Err(Failure::Retry { why, .. }) = stranger.send(&[outgoing()]).await else { panic!("sent") };
            assert!(why.contains("/nonexistent.pem: No such file"), "{why}");
            for (host, trusts) in [("127.0.0.1", true), ("localhost", false)] {
                let mut sink = syslog(&format!("tls://{host}:{port}"));
                sink.tls.ca = trusts.then(|| ca.clone());
                let Err(Failure::Retry { why, .. }) = sink.send(&[outgoing()]).await else {
                    panic!("{host}")
                };
                assert!(why.contains("TLS: ") || why.contains("no certificates"), "{why}");
            }
            let mut sink = syslog(&format!("tls://localhost:{port}"));
            sink.tls.ca = Some(ca.clone());
            sink.send(&[outgoing()]).await.expect("sent");
            drop(sink);
            server.await.expect("the server")
        });
        let _ = std::fs::remove_file(&ca);
        let text = String::from_utf8(received).expect("UTF-8");
        let (length, message) = text.split_once(' ').expect("a length");
        assert_eq!(length, message.len().to_string());
        check(message.as_bytes());
    }

    #[test]
    fn nobody_there_is_a_reason_to_try_again() {
        for address in ["tcp://127.0.0.1:1", "tls://127.0.0.1:1", "unix:///nonexistent/log"] {
            let Err(Failure::Retry { why, .. }) = block_on(syslog(address).send(&[outgoing()])) else {
                panic!("{address} takes it");
            };
            assert!(why.starts_with(address), "{why}");
        }
    }
}
