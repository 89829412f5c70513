//! What the CRI runtimes know, for the pipeline's thread, which must never wait: it looks into a cache, and a thread of its own
//! asks the runtimes for what is not in there. The pipeline comes back for it: alerts about young containers are held for a
//! while, and every newcomer's first exec asks again.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, TryLockError, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use super::{CriError, Sockets, ask_in_time, client::Answer, is_id, runtime};
use crate::{host::RuntimeFacts, telemetry::log};

/// For all questions to a runtime together.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between the end of an answer and the next question.
const GAP: Duration = Duration::from_millis(200);
/// The same with a socket that is not there (yet): a look costs next to nothing.
const GAP_ABSENT: Duration = Duration::from_secs(1);
/// The same after failures: it doubles with each until here.
const MAX_GAP: Duration = Duration::from_secs(30);
/// Without a question, to forget what is gone.
const POLL: Duration = Duration::from_secs(30);
/// The start waits for first answers no longer than this.
const START: Duration = Duration::from_millis(300);
/// A container that has been asked for in vain for so long is asked for less and less often: containerd lists a sandbox only
/// when it runs, and half a second is common on a busy node.
const EAGER: Duration = Duration::from_secs(5);
/// So long, a container that only its id is known of may still be about to get its name.
const PATIENCE: Duration = Duration::from_millis(500);
/// Containers that are asked for at the same time.
const MAX_WANTED: usize = 1024;

/// The cache, and whoever fills it.
#[derive(Debug)]
pub struct Watch {
    sockets: Sockets,
    shared: Arc<Mutex<Shared>>,
    thread: Option<Thread>,
    /// When to look whether there is a socket now, without a thread.
    next_look: Option<Instant>,
}

/// Ends, with all that it asks, when this is dropped.
#[derive(Debug)]
struct Thread {
    wake: watch::Sender<()>,
    _end: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By socket.
    seen: Vec<Seen>,
    /// What was looked for and is not known.
    wanted: HashMap<String, Wanted>,
}

#[derive(Debug, Default)]
struct Seen {
    facts: HashMap<String, RuntimeFacts>,
    /// When the last question that was answered was asked.
    asked: Option<Instant>,
    /// The last question was not answered.
    fails: bool,
}

#[derive(Debug)]
struct Wanted {
    first: Instant,
    /// When it is worth another question.
    next: Instant,
}

#[derive(Debug)]
enum Look {
    Known(Box<RuntimeFacts>),
    /// Nobody has answered since it was asked for.
    Pending,
    Unknown,
}

impl Watch {
    /// Without a socket there is no thread and no cost, until one appears.
    pub fn new(sockets: Sockets) -> Self {
        let mut watch = Watch { sockets, shared: Default::default(), thread: None, next_look: None };
        if let Some(answered) = watch.start(Instant::now()) {
            // Containers that are there already are looked at once, now: what is known by then has its name from the first alert on.
            let until = Instant::now() + START;
            while answered.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        }
        watch
    }

    /// What disk told about `id`, and what it lacks. Never waits.
    pub fn complete(&mut self, id: &str, disk: Option<RuntimeFacts>) -> Option<RuntimeFacts> {
        if self.sockets.paths.is_empty() || !may_tell(id, disk.as_ref()) {
            return disk;
        }
        // A name that nobody has given it: containerd's state has the id in its place.
        let unnamed = |facts: &RuntimeFacts| facts.name.as_deref() == Some(id);
        match (self.look(id, Instant::now()), disk) {
            (Look::Known(known), None) => Some(*known),
            (Look::Known(known), Some(mut facts)) => {
                if unnamed(&facts) {
                    facts.name = None;
                }
                runtime::complete(&mut facts, *known);
                Some(facts)
            }
            // Half of it would pass for all there is, and nobody would ask again.
            (Look::Pending, Some(mut facts)) if unnamed(&facts) => {
                facts.name = None;
                Some(facts)
            }
            (_, disk) => disk,
        }
    }

    #[cfg(test)]
    pub(super) fn is_asking(&self) -> bool {
        self.thread.is_some()
    }

    fn look(&mut self, id: &str, now: Instant) -> Look {
        if self.thread.is_none() {
            self.start(now);
        }
        let Some(thread) = &self.thread else { return Look::Unknown };
        let mut shared = match self.shared.try_lock() {
            Ok(shared) => shared,
            // An answer is being put in.
            Err(TryLockError::WouldBlock) => return Look::Pending,
            Err(TryLockError::Poisoned(_)) => return Look::Unknown,
        };
        let Shared { seen, wanted } = &mut *shared;
        if let Some(facts) = seen.iter().find_map(|seen| seen.facts.get(id)) {
            let facts = Box::new(facts.clone());
            wanted.remove(id);
            return Look::Known(facts);
        }
        if !wanted.contains_key(id) && wanted.len() >= MAX_WANTED {
            wanted.retain(|_, other| now.saturating_duration_since(other.first) < EAGER);
            if wanted.len() >= MAX_WANTED {
                return Look::Unknown;
            }
        }
        let entry = wanted.entry(id.to_owned()).or_insert(Wanted { first: now, next: now });
        let since = now.saturating_duration_since(entry.first);
        if now >= entry.next {
            entry.next = if since < EAGER { now } else { now + since };
            thread.wake.send_replace(());
        }
        let first = entry.first;
        let owes = |seen: &Seen| !seen.fails && seen.asked.is_none_or(|asked| asked < first);
        if since < PATIENCE && seen.iter().any(owes) { Look::Pending } else { Look::Unknown }
    }

    /// Starts the thread if there is anybody to ask. Its first answers, or that there is none, are told by the receiver.
    fn start(&mut self, now: Instant) -> Option<mpsc::Receiver<()>> {
        if self.next_look.is_some_and(|next| now < next) {
            return None;
        }
        self.next_look = Some(now + GAP_ABSENT);
        if self.sockets.present().is_empty() {
            return None;
        }
        let paths = self.sockets.paths.clone();
        if let Ok(mut shared) = self.shared.lock() {
            shared.seen.resize_with(paths.len(), Seen::default);
        }
        let (wake, woken) = watch::channel(());
        let (end, ended) = oneshot::channel::<()>();
        let (answered, first_answers) = mpsc::channel();
        let (shared, configured) = (Arc::clone(&self.shared), self.sockets.configured);
        let attend_all = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return log::warn!("CRI sockets are not asked", error),
            };
            runtime.block_on(async move {
                for (index, path) in paths.into_iter().enumerate() {
                    let socket = Socket { index, path, configured, shared: Arc::clone(&shared) };
                    tokio::spawn(socket.attend(woken.clone(), answered.clone()));
                }
                drop(answered);
                // That the other end is dropped is what is waited for.
                let _ = ended.await;
            });
        };
        match thread::Builder::new().name("cri".into()).spawn(attend_all) {
            Ok(_) => self.thread = Some(Thread { wake, _end: end }),
            Err(error) => log::warn!("CRI sockets are not asked", error),
        }
        Some(first_answers)
    }
}

/// True if a CRI runtime may know more of this than is known: a container with an id of theirs that is not known to be
/// another's. docker's containers behind cri-dockerd have their pods on disk.
fn may_tell(id: &str, disk: Option<&RuntimeFacts>) -> bool {
    is_id(id)
        && disk.is_none_or(|facts| {
            let runtime = facts.runtime.as_deref();
            facts.pod_name.is_none()
                && matches!(runtime, None | Some("containerd" | "cri-o" | "runc" | "crun"))
        })
}

/// One socket, and where its answers go.
struct Socket {
    index: usize,
    path: PathBuf,
    configured: bool,
    shared: Arc<Mutex<Shared>>,
}

impl Socket {
    /// Asks at once, then whenever it is woken, and from time to time while there is something to forget.
    async fn attend(self, mut woken: watch::Receiver<()>, first_answer: mpsc::Sender<()>) {
        let mut first_answer = Some(first_answer);
        let mut gap = GAP;
        let mut told = None;
        loop {
            // What is wanted from now on is not answered by this.
            woken.mark_unchanged();
            let asked = Instant::now();
            let images = self.images();
            let result = ask_in_time(&self.path, TIMEOUT, |id| !images.contains_key(id)).await;
            gap = match &result {
                Ok(_) => GAP,
                Err(error) if error.is_not_there() => GAP_ABSENT,
                Err(_) => (gap * 2).min(MAX_GAP),
            };
            self.tell(&result, &mut told);
            let holds = self.store(asked, result.ok(), images);
            drop(first_answer.take());
            tokio::time::sleep(gap).await;
            let poll = async {
                if holds {
                    tokio::time::sleep(POLL).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                changed = woken.changed() => if changed.is_err() { return },
                () = poll => {}
            }
        }
    }

    /// The images that are known by name, by container: they do not change, and may have taken a question each.
    fn images(&self) -> HashMap<String, String> {
        let Ok(shared) = self.shared.lock() else { return HashMap::new() };
        let facts = shared.seen.get(self.index).map(|seen| &seen.facts);
        facts
            .into_iter()
            .flatten()
            .filter_map(|(id, facts)| Some((id.clone(), facts.image.clone()?)))
            .collect()
    }

    /// Takes over what was answered, or that nothing was; true if anything is known.
    fn store(&self, asked: Instant, answer: Option<Answer>, images: HashMap<String, String>) -> bool {
        let mut answer = answer.map(|answer| answer.facts);
        for (id, image) in images {
            if let Some(facts) = answer.as_mut().and_then(|facts| facts.get_mut(&id)) {
                facts.image.get_or_insert(image);
            }
        }
        let Ok(mut shared) = self.shared.lock() else { return false };
        let Some(seen) = shared.seen.get_mut(self.index) else { return false };
        seen.fails = answer.is_none();
        let old = match answer {
            Some(facts) => {
                seen.asked = Some(asked);
                std::mem::replace(&mut seen.facts, facts)
            }
            // A runtime that is being restarted: its containers live on.
            None => HashMap::new(),
        };
        let holds = !seen.facts.is_empty();
        // Its memory is given back when the pipeline may look again.
        drop(shared);
        drop(old);
        holds
    }

    /// A line when it begins to fail, and when it answers again; not for each question, and none about sockets that nobody
    /// has said to be there.
    fn tell(&self, result: &Result<Answer, CriError>, told: &mut Option<Told>) {
        let now = match result {
            Ok(answer) if answer.cut => Some(Told::Cut),
            Ok(_) => None,
            Err(_) => Some(Told::Fails),
        };
        if *told == now {
            return;
        }
        let socket = self.path.display();
        match (result, &now) {
            (Err(error), _) if !self.configured && (error.is_no_cri() || error.is_not_there()) => {
                log::debug!("no CRI there", socket, why = error);
            }
            (Err(error), _) => log::warn!("a CRI socket is of no use", socket, why = error),
            (Ok(_), Some(_)) => log::warn!("a CRI socket tells not all", socket, why = CriError::Cut),
            (Ok(_), None) if *told == Some(Told::Fails) => log::info!("a CRI socket answers", socket),
            (Ok(_), None) => {}
        }
        *told = now;
    }
}

/// What the log has been told of a socket last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Fails,
    Cut,
}
