//! Prometheus's Alertmanager: it takes an alert, tells its receiver, and tells it again when the alert is resolved.

use std::{
    io::{BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use observer::model::{Alert, AlertState};
use serde_json::Value;

use crate::{Agent, Daemon, PATIENCE, Scratch, alert, free_port, http::request, program};

/// Alertmanager's own webhook receiver: each notification is one POST with JSON.
fn receiver() -> (u16, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || serve(&stream, &sender));
        }
    });
    (port, received)
}

fn serve(stream: &TcpStream, sender: &mpsc::Sender<Value>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (_, body) = request(&mut reader)?;
        sender.send(serde_json::from_slice(&body).ok()?).ok()?;
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

/// Now, as an alert has it.
fn now() -> String {
    let output =
        std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().expect("date");
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[test]
fn it_receives_and_resolves() {
    let scratch = Scratch::new();
    let (hook, notifications) = receiver();
    let config = format!(
        "route: {{receiver: test, group_by: [incident], group_wait: 100ms, group_interval: 500ms}}\n\
         receivers: [{{name: test, webhook_configs: [{{url: \"http://127.0.0.1:{hook}/\", send_resolved: true}}]}}]\n"
    );
    let config = scratch.file("alertmanager.yml", &config);
    let port = free_port();
    let mut command = program("prometheus-alertmanager", "prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", scratch.0.join("alertmanager").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        // No cluster, and so no other port.
        .arg("--cluster.listen-address=");
    let mut daemon = Daemon::start(command, &scratch);
    daemon.wait("listener", || TcpStream::connect(("127.0.0.1", port)).ok());
    let agent = Agent::start(
        &scratch,
        &format!(
            "  - {{type: alertmanager, name: am, url: \"http://127.0.0.1:{port}\", labels: {{cluster: c1}}}}\n"
        ),
    );

    let firing =
        Alert { rule: "cgroup.memory".into(), time: now(), state: Some(AlertState::Firing), ..alert(1) };
    agent.send(std::slice::from_ref(&firing));
    let told = notifications.recv_timeout(PATIENCE).expect("a notification");
    assert_eq!(told["status"], "firing", "{told}");
    let first = &told["alerts"][0];
    let labels = serde_json::json!({
        "alertname": "cgroup.memory", "severity": "critical", "node": "node-1.observer.test", "container_id": "3f2a9c1b0d4e",
        "container": "web", "image": "registry.example/web:1.2", "namespace": "shop", "pod": "web-0", "cluster": "c1",
        "incident": firing.incident,
    });
    assert_eq!(first["labels"], labels);
    assert_eq!(first["annotations"]["summary"], firing.title);
    assert_eq!(first["annotations"]["description"], firing.message, "lines and alphabets included");
    assert_eq!(first["annotations"]["id"], firing.id);

    let resolved = Alert {
        id: alert(2).id,
        incident: firing.incident.clone(),
        state: Some(AlertState::Resolved),
        time: now(),
        ..firing.clone()
    };
    agent.send(std::slice::from_ref(&resolved));
    let told = notifications.recv_timeout(PATIENCE).expect("a second notification");
    assert_eq!(told["status"], "resolved", "{told}");
    assert_eq!((&told["alerts"][0]["labels"], told["alerts"].as_array().map(Vec::len)), (&labels, Some(1)));
    assert_eq!(told["alerts"][0]["annotations"]["id"], resolved.id);
    agent.wait("am", 2);
    agent.end();
}
