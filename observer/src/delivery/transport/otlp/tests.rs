use std::sync::mpsc;

use bytes::{BufMut, BytesMut};
use tokio::net::TcpListener;

use super::*;
use crate::{
    config::{Config, SinkConfig},
    delivery::{format::tests::full, tests::receiver},
};

fn otlp(url: &str, protocol: &str) -> Otlp {
    let text = format!(
        "sinks: [{{type: otlp, name: o, url: \"{url}\", protocol: {protocol}, headers: {{x-scope: t1}}}}]"
    );
    let config = Config::parse("t".as_ref(), &text).expect("valid");
    match &config.sinks[0] {
        SinkConfig::Otlp(config) => Otlp::new(config, "n1"),
        other => panic!("{other:?}"),
    }
}

fn outgoing() -> Outgoing {
    let alert = full();
    Outgoing { json: serde_json::to_vec(&alert).expect("JSON").into(), alert }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// What a collector would see.
fn check(bytes: &[u8]) {
    let mut request = ExportLogsRequest::decode(bytes).expect("a request");
    let mut logs = request.resource_logs.remove(0);
    let resource = logs.resource.expect("a resource").attributes;
    assert!(resource.contains(&text("host.name", "n1")), "{resource:?}");
    let record = logs.scope_logs.remove(0).log_records.remove(0);
    assert_eq!((record.severity_number, record.time_unix_nano), (21, 1_767_323_045_000_000_006));
    assert!(record.attributes.contains(&text("k8s.namespace.name", "shop")), "{:?}", record.attributes);
    let expected = serde_json::to_value(full()).expect("JSON");
    assert_eq!(record.body, Some(any(&expected, 0)));
}

#[test]
fn over_http_it_is_protobuf() {
    let (port, received) = receiver(|_| Some(200));
    block_on(otlp(&format!("http://127.0.0.1:{port}"), "http").send(&[outgoing()])).expect("sent");
    let request = received.recv().expect("a request");
    assert_eq!(request.path, "/v1/logs");
    assert!(request.headers.contains("content-type: application/x-protobuf\r\n"), "{}", request.headers);
    check(&request.body);
}

/// A gRPC server that answers each call with the next of `statuses`.
async fn serve(
    listener: TcpListener,
    mut statuses: Vec<&'static str>,
    calls: mpsc::Sender<(String, BytesMut)>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let header = request.headers().get("x-scope").map(|it| it.to_str().expect("text").to_owned());
            let called = format!("{} {}", request.uri().path(), header.unwrap_or_default());
            let mut body = request.into_body();
            let (mut bytes, calls) = (BytesMut::new(), calls.clone());
            let status = if statuses.is_empty() { "0" } else { statuses.remove(0) };
            tokio::spawn(async move {
                while let Some(Ok(part)) = body.data().await {
                    body.flow_control().release_capacity(part.len()).expect("capacity");
                    bytes.extend_from_slice(&part);
                }
                calls.send((called, bytes)).expect("received");
                let mut answer = respond.send_response(http::Response::new(()), false).expect("a response");
                let mut message = BytesMut::new();
                message.put_bytes(0, 5);
                answer.send_data(message.freeze(), false).expect("sent");
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", status.parse().expect("a value"));
                answer.send_trailers(trailers).expect("sent");
            });
        }
    }
}

#[test]
fn over_grpc_a_status_says_whether_to_try_again() {
    let (calls, called) = mpsc::channel();
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        tokio::spawn(serve(listener, vec!["0", "14", "3", "16", "7"], calls));
        let mut sink = otlp(&format!("http://127.0.0.1:{port}"), "grpc");
        sink.send(&[outgoing()]).await.expect("sent");
        assert!(matches!(sink.send(&[outgoing()]).await, Err(Failure::Retry { .. })));
        assert!(matches!(sink.send(&[outgoing()]).await, Err(Failure::Rejected { .. })));
        assert!(matches!(sink.send(&[outgoing()]).await, Err(Failure::Denied { perhaps: false, .. })));
        assert!(matches!(sink.send(&[outgoing()]).await, Err(Failure::Denied { perhaps: true, .. })));
        sink.send(&[outgoing()]).await.expect("sent");
    });
    let all: Vec<_> = called.try_iter().collect();
    assert_eq!(all.len(), 6);
    for (called, bytes) in all {
        assert_eq!(called, "/opentelemetry.proto.collector.logs.v1.LogsService/Export t1");
        check(&bytes[5..]);
    }
}
