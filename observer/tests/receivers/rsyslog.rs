//! rsyslog over TCP and TLS.

use std::{fmt::Write as _, path::Path};

use observer::model::Alert;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

use crate::{Agent, Daemon, Scratch, alert, program};

const COUNT: u64 = 40;

/// What it writes of each message: a JSON object of its parts.
const TEMPLATE: &str = r#"
template(name="parts" type="list" option.jsonf="on") {
  property(outname="pri" name="pri" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="procid" name="procid" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}
"#;

struct Rsyslog {
    daemon: Daemon,
    port: u16,
}

impl Rsyslog {
    /// `globals` and `driver` are what TLS needs; port 0 is any.
    fn start(scratch: &Scratch, globals: &str, driver: &str, port: u16) -> Self {
        let dir = scratch.0.display();
        let mut config = format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"256k\" {globals})\nmodule(load=\"imtcp\" {driver})\n"
        );
        config.push_str(TEMPLATE);
        let _ = write!(
            config,
            "ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{dir}/got\" template=\"parts\" flushOnTXEnd=\"on\") }}\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" listenPortFileName=\"{dir}/port\" ruleset=\"all\")\n"
        );
        let config = scratch.file("rsyslog.conf", &config);
        let _ = std::fs::remove_file(scratch.0.join("port"));
        let mut command = program("rsyslogd", "rsyslog");
        // In the foreground, and with its pid file where we may write.
        command.arg("-n").arg("-f").arg(config).arg("-i").arg(scratch.0.join("pid"));
        let mut daemon = Daemon::start(command, scratch);
        let port = daemon.wait("port", || {
            if port != 0 {
                // It says only which one it was given.
                return std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(port);
            }
            std::fs::read_to_string(scratch.0.join("port")).ok()?.trim().parse().ok()
        });
        Rsyslog { daemon, port }
    }

    /// The messages that it has written, when there are so many.
    fn written(&mut self, scratch: &Scratch, count: u64) -> Vec<Value> {
        let path = scratch.0.join("got");
        let lines =
            || std::fs::read(&path).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count() as u64;
        self.daemon.wait("messages", || (lines() >= count).then_some(()));
        let text = std::fs::read_to_string(&path).expect("what it wrote");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

/// One of ours as it stands in its file.
fn check(got: &Value, sent: &Alert) {
    let text = |name: &str| got[name].as_str().unwrap_or_else(|| panic!("no {name} in {got}"));
    // daemon.crit; RFC 3339 with the six digits that RFC 5424 allows.
    assert_eq!((text("pri"), text("time")), ("26", "2026-01-02T03:04:05.000000Z"));
    assert_eq!((text("host"), text("app")), ("node-1.observer.test", "observer"));
    assert_eq!((text("procid"), text("msgid")), (&*std::process::id().to_string(), "namespace.escape"));
    assert_eq!(text("data"), "-");
    assert_eq!(text("msg"), serde_json::to_string(sent).expect("JSON"), "not a byte is changed");
    let parsed: Alert = serde_json::from_str(text("msg")).expect("the alert");
    assert_eq!(parsed, *sent);
}

fn alerts(numbers: std::ops::Range<u64>) -> Vec<Alert> {
    numbers.map(alert).collect()
}

/// In order and unchanged; then it is away for a while, and gets what came meanwhile.
#[test]
fn over_tcp_it_writes_what_was_sent() {
    let scratch = Scratch::new();
    let mut rsyslog = Rsyslog::start(&scratch, "", "", 0);
    let port = rsyslog.port;
    let agent = Agent::start(
        &scratch,
        &format!("  - {{type: syslog, name: siem, address: \"tcp://127.0.0.1:{port}\"}}\n"),
    );
    let (before, after) = (alerts(0..COUNT), alerts(COUNT..COUNT + 5));
    agent.send(&before);
    rsyslog.written(&scratch, COUNT);
    // Until then it would be sent again.
    agent.wait("siem", COUNT);
    drop(rsyslog);
    agent.send(&after);
    let mut rsyslog = Rsyslog::start(&scratch, "", "", port);
    let got = rsyslog.written(&scratch, COUNT + 5);
    assert_eq!(got.len() as u64, COUNT + 5);
    got.iter().zip(before.iter().chain(&after)).for_each(|(got, sent)| check(got, sent));
    agent.wait("siem", COUNT + 5);
    agent.end();
}

/// An authority of the test's own signs both sides, and each wants the other's certificate. Another's is of no use.
#[test]
fn over_tls_both_sides_show_certificates() {
    let scratch = Scratch::new();
    let ca = authority();
    let ca_file = scratch.file("ca.pem", &ca.pem());
    let (cert, key) = certificate(&scratch, &ca, "localhost");
    let globals = format!(
        "defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{}\" defaultNetstreamDriverCertFile=\"{}\" \
         defaultNetstreamDriverKeyFile=\"{}\"",
        ca_file.display(),
        cert.display(),
        key.display()
    );
    let driver = "streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/name\" \
                  permittedPeer=[\"node-1.observer.test\"]";
    assert!(
        Path::new("/usr/lib")
            .join(format!("{}-linux-gnu", std::env::consts::ARCH))
            .join("rsyslog/lmnsd_ossl.so")
            .is_file(),
        "rsyslog has no TLS: Debian's package rsyslog-openssl, or `cargo xtask setup --for test`"
    );
    let mut rsyslog = Rsyslog::start(&scratch, &globals, driver, 0);
    let (cert, key) = certificate(&scratch, &ca, "node-1.observer.test");
    let (other_cert, other_key) = certificate(&scratch, &authority(), "somebody.else.test");
    let sink = |name: &str, cert: &Path, key: &Path| {
        format!(
            "  - {{type: syslog, name: {name}, address: \"tls://localhost:{}\", tls: {{ca: {}, cert: {}, key: {}}}}}\n",
            rsyslog.port,
            ca_file.display(),
            cert.display(),
            key.display()
        )
    };
    let stranger = sink("stranger", &other_cert, &other_key);
    let agent = Agent::start(&scratch, &(sink("siem", &cert, &key) + &stranger));
    let sent = alerts(0..COUNT);
    agent.send(&sent);
    let got = rsyslog.written(&scratch, COUNT);
    agent.wait("siem", COUNT);
    got.iter().zip(&sent).for_each(|(got, sent)| check(got, sent));
    // Whom it does not know delivers nothing, and nothing of that is taken for delivered.
    assert_eq!(got.len() as u64, COUNT);
    assert_eq!(agent.value("observer_sink_backlog{sink=\"stranger\"}"), COUNT);
    assert_eq!(agent.value("observer_sink_alerts_total{sink=\"stranger\"}"), 0);
    agent.end();
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "observer's tests");
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate and its key, in files.
fn certificate(
    scratch: &Scratch,
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
) -> (std::path::PathBuf, std::path::PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let signed = params.signed_by(&key, ca).expect("signed");
    (
        scratch.file(&format!("{name}.pem"), &signed.pem()),
        scratch.file(&format!("{name}.key"), &key.serialize_pem()),
    )
}
