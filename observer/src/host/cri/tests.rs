//! Against a CRI runtime of the tests' own, which answers as it is told, or not at all.

use std::{
    io::Write,
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{
    CriError, Problem, Sockets, Watch, ask_all,
    client::MAX_ENTRIES,
    grpc::{self, GrpcError},
    messages::*,
};
use crate::host::RuntimeFacts;

/// What the other side does when a method is called.
#[derive(Clone)]
enum Reply {
    /// This message, and all is well.
    Message(Vec<u8>),
    /// These bytes as they are, and all is well.
    Body(Vec<u8>),
    /// These bytes, and no status.
    NoStatus(Vec<u8>),
    /// A refusal, without a body.
    Status(u32),
    /// Bytes without end, after those that announce a message of this length.
    Endless(u32),
    Never,
}

/// A server on a socket of its own, until it is dropped.
struct Fake {
    socket: PathBuf,
    lists: Arc<AtomicUsize>,
    _end: tokio::sync::oneshot::Sender<()>,
}

fn new_socket() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("observer-cri-{}-{number}.sock", std::process::id()))
}

impl Fake {
    fn start(reply: impl Fn(&str, Bytes) -> Reply + Send + Sync + 'static) -> Self {
        Fake::start_at(new_socket(), reply)
    }

    fn start_at(socket: PathBuf, reply: impl Fn(&str, Bytes) -> Reply + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(&socket).expect("a socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let lists = Arc::new(AtomicUsize::new(0));
        let (reply, counted) = (Arc::new(reply), Arc::clone(&lists));
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                tokio::spawn(async move {
                    let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, Arc::clone(&reply), Arc::clone(&counted)));
                    }
                });
                let _ = ended.await;
            });
        });
        Fake { socket, lists, _end: end }
    }

    fn ask(&self, timeout: Duration) -> (std::collections::HashMap<String, RuntimeFacts>, Vec<Problem>) {
        ask_all(std::slice::from_ref(&self.socket), timeout)
    }

    fn sockets(&self) -> Sockets {
        Sockets { paths: vec![self.socket.clone()], configured: true }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn serve(
    stream: tokio::net::UnixStream,
    reply: Arc<impl Fn(&str, Bytes) -> Reply + Send + Sync + 'static>,
    lists: Arc<AtomicUsize>,
) {
    let mut connection = h2::server::handshake(stream).await.expect("a client");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let reply = Arc::clone(&reply);
        let lists = Arc::clone(&lists);
        tokio::spawn(async move {
            let (request, mut body) = request.into_parts();
            let mut question = BytesMut::new();
            while let Some(Ok(part)) = body.data().await {
                question.extend_from_slice(&part);
            }
            let method = request.uri.path();
            if method == LIST_CONTAINERS {
                lists.fetch_add(1, Ordering::Relaxed);
            }
            let headers = http::Response::builder().header("content-type", "application/grpc");
            let (bytes, status) = match reply(method, question.freeze().slice(5..)) {
                Reply::Message(bytes) => (body_of(0, bytes.len() as u32, &bytes), true),
                Reply::Body(bytes) => (bytes, true),
                Reply::NoStatus(bytes) => (bytes, false),
                Reply::Status(code) => {
                    let headers = headers.header("grpc-status", code).header("grpc-message", "no\u{9b}2J");
                    let _ = respond.send_response(headers.body(()).expect("headers"), true);
                    return;
                }
                Reply::Endless(length) => {
                    let mut send =
                        respond.send_response(headers.body(()).expect("headers"), false).expect("sent");
                    let _ = send.send_data(body_of(0, length, &[]).into(), false);
                    while send.send_data(vec![0; 65536].into(), false).is_ok() {
                        // As fast as it is taken.
                        tokio::time::sleep(Duration::from_micros(100)).await;
                    }
                    return;
                }
                Reply::Never => std::future::pending().await,
            };
            let mut send = respond.send_response(headers.body(()).expect("headers"), false).expect("sent");
            let _ = send.send_data(bytes.into(), !status);
            if status {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", 0.into());
                let _ = send.send_trailers(trailers);
            }
        });
    }
}

fn body_of(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u8(compressed);
    body.put_u32(length);
    body.extend_from_slice(bytes);
    body
}

fn list<M: Message>(items: &[M]) -> Vec<u8> {
    ListResponse { items: items.iter().map(|item| item.encode_to_vec().into()).collect() }.encode_to_vec()
}

fn id(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn sandbox(digit: char, name: &str) -> PodSandbox {
    PodSandbox {
        id: id(digit),
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: "shop".to_owned(),
        }),
        created_at: 1_700_000_000_000_000_000,
    }
}

fn container(digit: char, sandbox: char, name: &str, asked_for: [&str; 2], image_ref: &str) -> Container {
    Container {
        id: id(digit),
        pod_sandbox_id: id(sandbox),
        metadata: Some(ContainerMetadata { name: name.to_owned() }),
        image: Some(ImageSpec {
            image: asked_for[0].to_owned(),
            user_specified_image: asked_for[1].to_owned(),
        }),
        image_ref: image_ref.to_owned(),
        created_at: 1_700_000_001_000_000_000,
        image_id: String::new(),
    }
}

/// A runtime with these.
fn runtime(
    name: &str,
    sandboxes: &[PodSandbox],
    containers: &[Container],
) -> impl Fn(&str, Bytes) -> Reply + Send + Sync + 'static {
    let version = VersionResponse { runtime_name: name.to_owned() }.encode_to_vec();
    let (sandboxes, containers) = (list(sandboxes), list(containers));
    move |method, _| match method {
        VERSION => Reply::Message(version.clone()),
        LIST_POD_SANDBOX => Reply::Message(sandboxes.clone()),
        LIST_CONTAINERS => Reply::Message(containers.clone()),
        _ => Reply::Status(grpc::UNIMPLEMENTED),
    }
}

const SECOND: Duration = Duration::from_secs(5);

fn digest(digit: char) -> String {
    format!("sha256:{}", id(digit))
}

#[test]
fn pods_and_containers_are_found() {
    let by_digest = format!("registry.example/web@{}", digest('d'));
    let containers = [
        // containerd, Kubernetes since 1.28: asked for by id, and what the user wrote is there.
        container('1', 'a', "web", [&digest('e'), "registry.example/web:1"], &digest('e')),
        // CRI-O: the reference has the digest.
        container('2', 'a', "side", ["registry.example/side:2", ""], &by_digest),
        // A sandbox that is gone already.
        container('3', 'b', "lost", ["", ""], &by_digest),
    ];
    let fake = Fake::start(runtime("containerd", &[sandbox('a', "front")], &containers));
    let (facts, problems) = fake.ask(SECOND);
    assert!(problems.is_empty(), "{problems:?}");
    let pod = RuntimeFacts {
        runtime: Some("containerd".into()),
        pod_namespace: Some("shop".into()),
        pod_name: Some("front".into()),
        pod_uid: Some("uid-of-front".into()),
        pod_sandbox_id: Some(id('a')),
        ..RuntimeFacts::default()
    };
    let container = |digit, name: &str| RuntimeFacts {
        id: Some(id(digit)),
        name: Some(name.into()),
        pod_container: Some(name.into()),
        created_unix_ns: Some(1_700_000_001_000_000_000),
        ..pod.clone()
    };
    let expected = [
        RuntimeFacts {
            id: Some(id('a')),
            name: Some("POD".into()),
            pod_sandbox: true,
            created_unix_ns: Some(1_700_000_000_000_000_000),
            ..pod.clone()
        },
        RuntimeFacts {
            image: Some("registry.example/web:1".into()),
            image_id: Some(digest('e')),
            ..container('1', "web")
        },
        RuntimeFacts {
            image: Some("registry.example/side:2".into()),
            image_digest: Some(digest('d')),
            ..container('2', "side")
        },
        RuntimeFacts {
            image: Some(by_digest),
            image_digest: Some(digest('d')),
            pod_namespace: None,
            pod_name: None,
            pod_uid: None,
            pod_sandbox_id: Some(id('b')),
            ..container('3', "lost")
        },
    ];
    assert_eq!(facts.len(), expected.len());
    for expected in expected {
        assert_eq!(facts.get(expected.id.as_deref().expect("an id")), Some(&expected));
    }
}

/// Before Kubernetes 1.28 the list has only the image's id; the status has its name.
#[test]
fn an_image_without_a_name_is_asked_for() {
    let containers = [
        container('1', 'a', "web", [&digest('e'), ""], &digest('e')),
        container('2', 'a', "gone", [&digest('e'), ""], &digest('e')),
    ];
    let lists = runtime("containerd", &[sandbox('a', "front")], &containers);
    let fake = Fake::start(move |method, question| {
        if method != CONTAINER_STATUS {
            return lists(method, question);
        }
        let asked = ContainerStatusRequest::decode(question).expect("a question");
        if asked.container_id == id('2') {
            return Reply::Status(5);
        }
        let image = ImageSpec { image: "registry.example/web:1".into(), user_specified_image: String::new() };
        let image_ref = format!("registry.example/web@{}", digest('d'));
        let status = ContainerStatus { image: Some(image), image_ref };
        Reply::Message(ContainerStatusResponse { status: Some(status) }.encode_to_vec())
    });
    let (facts, problems) = fake.ask(SECOND);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(facts[&id('1')].image.as_deref(), Some("registry.example/web:1"));
    assert_eq!(facts[&id('1')].image_digest, Some(digest('d')));
    assert_eq!(facts[&id('1')].image_id, Some(digest('e')));
    assert_eq!(facts[&id('2')].image, None);
    assert_eq!(facts[&id('2')].name.as_deref(), Some("gone"));
}

/// What others than a well-behaved runtime send: an error each, in time, and what is sound in it is kept.
#[test]
fn nonsense_is_told() {
    type Case = (&'static str, Reply, fn(&CriError) -> bool);
    let cases: [Case; 9] = [
        ("no CRI", Reply::Status(grpc::UNIMPLEMENTED), CriError::is_no_cri),
        ("a refusal", Reply::Status(16), |e| {
            matches!(e, CriError::Grpc(GrpcError::Status { code: 16, .. })) && !e.is_no_cri()
        }),
        ("no message", Reply::Body(Vec::new()), |e| matches!(e, CriError::Grpc(GrpcError::Malformed(_)))),
        ("a cut message", Reply::Body(body_of(0, 9, b"abc")), |e| {
            matches!(e, CriError::Grpc(GrpcError::Malformed(_)))
        }),
        ("compressed", Reply::Body(body_of(1, 0, b"")), |e| {
            matches!(e, CriError::Grpc(GrpcError::Malformed(_)))
        }),
        ("no status", Reply::NoStatus(body_of(0, 0, b"")), |e| {
            matches!(e, CriError::Grpc(GrpcError::Malformed(_)))
        }),
        ("no protobuf", Reply::Message(vec![0xff; 64]), |e| {
            matches!(e, CriError::Grpc(GrpcError::Decode(_)))
        }),
        ("too large", Reply::Endless(u32::MAX), |e| matches!(e, CriError::Grpc(GrpcError::TooLarge { .. }))),
        ("silence", Reply::Never, |e| matches!(e, CriError::TimedOut(_))),
    ];
    for (name, reply, expected) in cases {
        // The version is asked for first, the containers second.
        for method in [VERSION, LIST_CONTAINERS] {
            let lists = runtime("containerd", &[], &[]);
            let reply = reply.clone();
            let fake = Fake::start(
                move |asked, question| {
                    if asked == method { reply.clone() } else { lists(asked, question) }
                },
            );
            let limit = if name == "silence" { Duration::from_millis(200) } else { SECOND };
            let begun = Instant::now();
            let (facts, problems) = fake.ask(limit);
            assert!(begun.elapsed() < limit + Duration::from_secs(1), "{name}: {:?}", begun.elapsed());
            assert!(facts.is_empty(), "{name}");
            let [problem] = problems.as_slice() else { panic!("{name}: {problems:?}") };
            assert!(expected(&problem.error), "{name}: {problem}");
            assert!(!problem.to_string().contains(char::is_control), "{name}: {problem}");
        }
    }
}

#[test]
fn a_socket_that_speaks_something_else() {
    let socket = new_socket();
    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(1) {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let (facts, problems) = ask_all(std::slice::from_ref(&socket), SECOND);
    assert!(facts.is_empty());
    assert!(
        matches!(&problems[..], [Problem { error: CriError::Grpc(GrpcError::Http2(_)), .. }]),
        "{problems:?}"
    );
    std::fs::remove_file(&socket).expect("its socket");
    let (_, problems) = ask_all(std::slice::from_ref(&socket), SECOND);
    assert!(problems[0].error.is_not_there(), "{problems:?}");
    assert!(ask_all(&[], SECOND).1.is_empty());
}

/// One of two hangs: the other one's answer is there all the same.
#[test]
fn one_that_hangs_hides_no_other() {
    let silent = Fake::start(|_, _| Reply::Never);
    let fake = Fake::start(runtime("cri-o", &[sandbox('a', "front")], &[]));
    let sockets = [silent.socket.clone(), fake.socket.clone()];
    let (facts, problems) = ask_all(&sockets, Duration::from_millis(300));
    assert_eq!(facts[&id('a')].runtime.as_deref(), Some("cri-o"));
    assert!(matches!(&problems[..], [Problem { error: CriError::TimedOut(_), .. }]), "{problems:?}");
    assert_eq!(problems[0].socket, silent.socket);
}

#[test]
fn an_answer_is_bounded() {
    // Entries of two bytes each, and one that is garbage.
    let mut entries = [0x0a, 0x00].repeat(3 * MAX_ENTRIES);
    entries.extend(list(&[container('1', 'a', "late", ["", ""], "")]));
    let mut garbage = vec![0x0a, 0x02, 0xff, 0xff];
    garbage.extend(list(&[sandbox('a', "front")]));
    let version = VersionResponse::default().encode_to_vec();
    let fake = Fake::start(move |method, _| match method {
        VERSION => Reply::Message(version.clone()),
        LIST_CONTAINERS => Reply::Message(entries.clone()),
        _ => Reply::Message(garbage.clone()),
    });
    let (facts, problems) = fake.ask(SECOND);
    assert!(matches!(&problems[..], [Problem { error: CriError::Cut, .. }]), "{problems:?}");
    assert_eq!(facts.keys().collect::<Vec<_>>(), [&id('a')]);

    // Texts are cut, and ids of another form are nobody's.
    let long = sandbox('a', &"ä".repeat(9000));
    let strange = PodSandbox { id: "../../etc".to_owned(), ..sandbox('b', "strange") };
    let text = || "x".repeat(600);
    let metadata = PodSandboxMetadata { name: text(), uid: text(), namespace: text() };
    let many: Vec<PodSandbox> = (0..MAX_ENTRIES)
        .map(|n| PodSandbox { id: format!("{n:064x}"), metadata: Some(metadata.clone()), created_at: 0 })
        .collect();
    let fake = Fake::start(runtime("containerd", &[long, strange], &[]));
    let (facts, problems) = fake.ask(SECOND);
    assert!(problems.is_empty());
    assert_eq!(facts.keys().collect::<Vec<_>>(), [&id('a')]);
    assert_eq!(facts[&id('a')].pod_name, Some("ä".repeat(256)));
    let fake = Fake::start(runtime("containerd", &many, &[]));
    let (facts, problems) = fake.ask(SECOND);
    assert!(matches!(&problems[..], [Problem { error: CriError::Cut, .. }]), "{problems:?}");
    let kept: usize = facts.values().filter_map(|facts| facts.pod_name.as_ref()).map(String::len).sum();
    assert!((1 << 20..=4 << 20).contains(&kept), "{kept}");
}

fn found(id: &str, runtime: &str, name: Option<&str>) -> RuntimeFacts {
    RuntimeFacts {
        id: Some(id.to_owned()),
        runtime: Some(runtime.to_owned()),
        name: name.map(str::to_owned),
        ..RuntimeFacts::default()
    }
}

/// The disk's word comes first; only gaps are filled, and only where a CRI runtime may know.
#[test]
fn gaps_are_filled() {
    let containers = [container('1', 'a', "web", ["registry.example/web:1", ""], &digest('e'))];
    let fake = Fake::start(runtime("containerd", &[sandbox('a', "front")], &containers));
    let mut watch = Watch::new(fake.sockets());
    let one = id('1');
    let whole = watch.complete(&one, None).expect("its first answer was waited for");
    assert_eq!(whole.pod_name.as_deref(), Some("front"));
    assert_eq!(whole.image.as_deref(), Some("registry.example/web:1"));

    let asks = |disk: RuntimeFacts| -> (Option<String>, Option<String>, Option<String>) {
        let facts = watch.complete(&one, Some(disk)).expect("something");
        (facts.name, facts.pod_name, facts.runtime)
    };
    let mut asks = asks;
    let some = |text: &str| Some(text.to_owned());
    // (what disk tells, name and pod in the end)
    let cases = [
        (found(&one, "containerd", None), some("web"), some("front"), "containerd"),
        // The id is no name.
        (found(&one, "containerd", Some(&one)), some("web"), some("front"), "containerd"),
        (found(&one, "containerd", Some("nerd")), some("nerd"), some("front"), "containerd"),
        (found(&one, "runc", None), some("web"), some("front"), "runc"),
        // Others' containers are not asked about.
        (found(&one, "docker", None), None, None, "docker"),
        (found(&one, "podman", Some("db")), some("db"), None, "podman"),
        // A pod is all that there is to know.
        (
            RuntimeFacts { pod_name: some("disk"), ..found(&one, "containerd", None) },
            None,
            some("disk"),
            "containerd",
        ),
    ];
    for (disk, name, pod, runtime) in cases {
        let told = format!("{disk:?}");
        assert_eq!(asks(disk), (name, pod, some(runtime)), "{told}");
    }
    assert_eq!(watch.complete("web-1", None), None);
    assert_eq!(fake.lists.load(Ordering::Relaxed), 1, "what is known is not asked for again");
}

/// Asks as the pipeline does, until there is an answer.
fn wait_for(watch: &mut Watch, id: &str, limit: Duration) -> Option<RuntimeFacts> {
    let until = Instant::now() + limit;
    loop {
        let begun = Instant::now();
        let facts = watch.complete(id, None);
        assert!(begun.elapsed() < Duration::from_millis(100), "it waited");
        if facts.is_some() || Instant::now() > until {
            return facts;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A container made after the first list is found, and asking for one that nobody knows does not ask all the time.
#[test]
fn a_new_container_is_found() {
    let late = Arc::new(AtomicUsize::new(0));
    let (before, after) =
        (runtime("containerd", &[], &[]), runtime("containerd", &[sandbox('a', "new")], &[]));
    let switch = Arc::clone(&late);
    let fake = Fake::start(move |method, question| {
        if switch.load(Ordering::Relaxed) == 0 { before(method, question) } else { after(method, question) }
    });
    let mut watch = Watch::new(fake.sockets());
    // containerd's state on disk has nothing but the id: while nobody has answered it is not taken for its name.
    let disk = found(&id('a'), "containerd", Some(&id('a')));
    let first = watch.complete(&id('a'), Some(disk.clone())).expect("what disk says");
    assert_eq!((first.name, first.runtime), (None, disk.runtime.clone()));
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(watch.complete(&id('a'), Some(disk.clone())), Some(disk), "it has been answered for");
    late.store(1, Ordering::Relaxed);
    let facts = wait_for(&mut watch, &id('a'), SECOND).expect("the new one");
    assert_eq!((facts.pod_name.as_deref(), facts.pod_sandbox), (Some("new"), true));
    let before = fake.lists.load(Ordering::Relaxed);
    assert_eq!(wait_for(&mut watch, &id('f'), Duration::from_secs(1)), None);
    let asked = fake.lists.load(Ordering::Relaxed) - before;
    assert!((1..=6).contains(&asked), "{asked} lists in a second");
}

#[test]
fn a_runtime_that_hangs_is_not_waited_for() {
    let fake = Fake::start(|_, _| Reply::Never);
    let begun = Instant::now();
    let mut watch = Watch::new(fake.sockets());
    assert!(begun.elapsed() < Duration::from_secs(1), "the start took {:?}", begun.elapsed());
    let disk = found(&id('a'), "containerd", Some(&id('a')));
    assert_eq!(watch.complete(&id('a'), Some(disk.clone())).expect("what disk says").name, None);
    assert_eq!(wait_for(&mut watch, &id('a'), Duration::from_millis(600)), None);
    assert_eq!(watch.complete(&id('a'), Some(disk.clone())), Some(disk), "it is not waited for for ever");
}

/// Without a socket nothing is started; one that appears later is found.
#[test]
fn a_socket_may_come_later() {
    let socket = new_socket();
    let mut watch = Watch::new(Sockets { paths: vec![socket.clone()], configured: false });
    assert_eq!(watch.complete(&id('a'), None), None);
    assert!(!watch.is_asking());
    let _fake = Fake::start_at(socket, runtime("containerd", &[sandbox('a', "front")], &[]));
    let facts = wait_for(&mut watch, &id('a'), SECOND).expect("its pod");
    assert_eq!(facts.pod_name.as_deref(), Some("front"));
    assert!(watch.is_asking());
    let mut none = Watch::new(Sockets::new(Some(&[]), "/run".as_ref()));
    assert_eq!(none.complete(&id('a'), None), None);
    assert!(!none.is_asking());
}

/// While a runtime is being restarted, its containers live on, and are still known.
#[test]
fn a_runtime_may_be_restarted() {
    let fake = Fake::start(runtime("containerd", &[sandbox('a', "old")], &[]));
    let mut watch = Watch::new(fake.sockets());
    let socket = fake.socket.clone();
    drop(fake);
    // It is asked for something else meanwhile, in vain.
    assert_eq!(wait_for(&mut watch, &id('b'), Duration::from_millis(600)), None);
    assert_eq!(watch.complete(&id('a'), None).and_then(|facts| facts.pod_name).as_deref(), Some("old"));
    let _fake = Fake::start_at(socket, runtime("containerd", &[sandbox('b', "new")], &[]));
    let facts = wait_for(&mut watch, &id('b'), SECOND).expect("the new pod");
    assert_eq!(facts.pod_name.as_deref(), Some("new"));
    assert_eq!(watch.complete(&id('a'), None), None, "what is gone is forgotten");
}

#[test]
fn usual_sockets_are_those_that_are_there() {
    let run = std::env::temp_dir().join(format!("observer-cri-run-{}", std::process::id()));
    std::fs::create_dir_all(run.join("crio")).expect("a directory");
    std::fs::create_dir_all(run.join("containerd")).expect("a directory");
    // A file is no socket.
    std::fs::write(run.join("containerd/containerd.sock"), "").expect("a file");
    let socket = run.join("crio/crio.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    assert_eq!(Sockets::new(None, &run).present(), [socket]);
    let named: Vec<PathBuf> = vec!["/nonexistent.sock".into()];
    assert_eq!(Sockets::new(Some(&named), &run).present(), named);
    assert!(Sockets::new(Some(&[]), &run).present().is_empty());
    std::fs::remove_dir_all(&run).expect("clean up");
}
