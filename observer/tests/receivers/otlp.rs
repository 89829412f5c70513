//! A collector made of OpenTelemetry's own messages (the crate `opentelemetry-proto`), over gRPC by tonic and over HTTP.

use std::{
    io::{BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use observer::model::Alert;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::SeverityNumber,
};
use prost::Message;
use serde_json::{Value, json};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{Agent, PATIENCE, Scratch, alert, http::request};

const COUNT: u64 = 20;

/// A value as JSON has it.
fn plain(value: Option<AnyValue>) -> Value {
    match value.and_then(|it| it.value) {
        None => Value::Null,
        Some(Any::StringValue(it)) => it.into(),
        Some(Any::BoolValue(it)) => it.into(),
        Some(Any::IntValue(it)) => it.into(),
        Some(Any::DoubleValue(it)) => it.into(),
        Some(Any::ArrayValue(it)) => it.values.into_iter().map(|it| plain(Some(it))).collect(),
        Some(Any::KvlistValue(it)) => attributes(it.values),
        Some(other) => panic!("a value that JSON has not: {other:?}"),
    }
}

fn attributes(list: Vec<KeyValue>) -> Value {
    let count = list.len();
    let map: serde_json::Map<String, Value> = list.into_iter().map(|it| (it.key, plain(it.value))).collect();
    assert_eq!(map.len(), count, "a key twice");
    map.into()
}

/// The records of a request, each checked against what was sent, whose ids are returned.
fn check(request: ExportLogsServiceRequest) -> Vec<String> {
    let [resource] = <[_; 1]>::try_from(request.resource_logs).expect("one resource");
    let about = attributes(resource.resource.expect("a resource").attributes);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        about,
        json!({"service.name": "observer", "service.version": version, "host.name": "node-1.observer.test"})
    );
    let [scope] = <[_; 1]>::try_from(resource.scope_logs).expect("one scope");
    assert_eq!(scope.scope.expect("a scope").name, "observer.alert");
    let check_one = |record: opentelemetry_proto::tonic::logs::v1::LogRecord| {
        assert_eq!(record.severity_number(), SeverityNumber::Fatal);
        assert_eq!((record.severity_text.as_str(), record.event_name.as_str()), ("FATAL", "observer.alert"));
        assert_eq!(record.time_unix_nano, 1_767_323_045_000_000_006);
        assert!(record.observed_time_unix_nano > record.time_unix_nano);
        let body = plain(record.body);
        let n =
            body["id"].as_str().and_then(|id| id.rsplit('-').next()?.parse().ok()).expect("an id of ours");
        let sent = alert(n);
        let mut expected = serde_json::to_value(&sent).expect("JSON");
        // Beyond OTLP's integers: all digits, as text.
        expected["container"]["cgroup_id"] = "18446744073709551615".into();
        assert_eq!(body, expected);
        assert_eq!(
            attributes(record.attributes),
            json!({
                "log.record.uid": sent.id, "observer.rule": "namespace.escape", "observer.severity": "critical",
                "observer.incident": sent.incident, "observer.message": sent.message, "container.id": "3f2a9c1b0d4e",
                "container.name": "web", "container.image.name": "registry.example/web:1.2", "container.runtime": "docker",
                "k8s.namespace.name": "shop", "k8s.pod.name": "web-0",
                "k8s.pod.uid": "7d9f3f0e-2f0c-4a43-9d9c-1f7e0a4a1b2c", "process.executable.path": "/usr/bin/nsenter",
                "process.pid": 4242,
            })
        );
        sent.id
    };
    scope.log_records.into_iter().map(check_one).collect()
}

/// The first answer says that it has taken all but two.
fn answer(calls: &AtomicU32) -> ExportLogsServiceResponse {
    let partial = ExportLogsPartialSuccess { rejected_log_records: 2, error_message: "two too many".into() };
    let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
    ExportLogsServiceResponse { partial_success: first.then_some(partial) }
}

struct Collector {
    calls: AtomicU32,
    received: mpsc::Sender<ExportLogsServiceRequest>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        if request.metadata().get("x-token").is_none_or(|it| it != "s3cret") {
            return Err(Status::unauthenticated("who are you?"));
        }
        self.received.send(request.into_inner()).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(answer(&self.calls)))
    }
}

fn grpc() -> (u16, mpsc::Receiver<ExportLogsServiceRequest>) {
    let (sender, received) = mpsc::channel();
    let (port_sender, port) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            port_sender.send(listener.local_addr().expect("its address").port()).expect("told");
            let service = LogsServiceServer::new(Collector { calls: AtomicU32::new(0), received: sender });
            let server = tonic::transport::Server::builder();
            server.serve_with_incoming(service, TcpIncoming::from(listener)).await.expect("served");
        });
    });
    (port.recv().expect("a port"), received)
}

/// As much of HTTP/1.1 as the sink speaks.
fn http() -> (u16, mpsc::Receiver<ExportLogsServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        let calls = AtomicU32::new(0);
        for stream in listener.incoming().flatten() {
            let _ = serve(&stream, &calls, &sender);
        }
    });
    (port, received)
}

fn serve(
    stream: &TcpStream,
    calls: &AtomicU32,
    sender: &mpsc::Sender<ExportLogsServiceRequest>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (head, body) = request(&mut reader)?;
        let mut plain = Vec::new();
        if head.contains("content-encoding: gzip\r\n") {
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).ok()?;
        }
        let right = head.starts_with("post /v1/logs http/1.1\r\n")
            && head.contains("content-type: application/x-protobuf\r\n")
            && head.contains("x-token: s3cret\r\n");
        let (status, answer) = match ExportLogsServiceRequest::decode(&*plain) {
            Ok(request) if right => {
                sender.send(request).ok()?;
                (200, answer(calls).encode_to_vec())
            }
            _ => (400, Vec::new()),
        };
        write!(&*stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len()).ok()?;
        (&*stream).write_all(&answer).ok()?;
    }
}

/// Everything decodes and is what was sent, once; of what is refused in part, no more is said than the collector said.
fn arrives(port: u16, protocol: &str, received: &mpsc::Receiver<ExportLogsServiceRequest>) {
    let scratch = Scratch::new();
    let token = scratch.file("token", "s3cret\n");
    let agent = Agent::start(
        &scratch,
        &format!(
            "  - {{type: otlp, name: otel, url: \"http://127.0.0.1:{port}\", protocol: {protocol}, gzip: {}, \
             header_files: {{X-Token: {}}}}}\n",
            protocol == "http",
            token.display()
        ),
    );
    let sent: Vec<Alert> = (0..COUNT).map(alert).collect();
    agent.send(&sent);
    let mut ids = Vec::new();
    while ids.len() < sent.len() {
        ids.extend(check(received.recv_timeout(PATIENCE).expect("a request")));
    }
    assert_eq!(ids, sent.iter().map(|it| it.id.clone()).collect::<Vec<_>>(), "in order, and none twice");
    agent.wait("otel", COUNT - 2);
    assert_eq!(agent.value("observer_sink_dropped_total{reason=\"rejected\",sink=\"otel\"}"), 2);
    agent.end();
    assert!(received.try_recv().is_err(), "nothing is sent again");
}

#[test]
fn over_grpc_it_decodes() {
    let (port, received) = grpc();
    arrives(port, "grpc", &received);
}

#[test]
fn over_http_it_decodes() {
    let (port, received) = http();
    arrives(port, "http", &received);
}
