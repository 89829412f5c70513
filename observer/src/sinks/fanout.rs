//! From one pipeline to any number of readers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{TailItem, protocol::Want, questions::Questions};
use crate::{
    inventory::Membership,
    model::{Alert, EventRecord, Observed, ProcessRef},
    telemetry::metrics::{DropReason, SinkMetrics},
};

/// Bounds of a reader's queue, in items ...
const ALERTS: usize = 4096;
const EVENTS: usize = 65536;
/// ... and in bytes, whichever is met first: long arguments in a flood of events that one reader is too slow for
/// must not take the memory that the whole agent has been promised to stay within.
const BYTES: usize = 8 << 20;
/// Alerts kept for readers that come later.
const RECENT: usize = 100;

/// Given to the pipeline, which must never wait: whatever it hands over here is queued or dropped at once.
#[derive(Clone)]
pub struct Fanout {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    event_readers: AtomicUsize,
    closed: watch::Sender<bool>,
    membership: Questions<Membership>,
    observed: Questions<Observed>,
}

#[derive(Default)]
struct State {
    queues: Vec<Queue>,
    recent: VecDeque<Arc<Alert>>,
}

/// The writing end of one reader's queue.
struct Queue {
    want: Want,
    sender: mpsc::Sender<Queued>,
    level: Arc<Level>,
    metrics: SinkMetrics,
}

/// What both ends of a queue keep track of.
#[derive(Default)]
struct Level {
    bytes: AtomicUsize,
    /// Dropped since the last item that found room.
    missed: AtomicU64,
}

struct Queued {
    missed_before: u64,
    weight: usize,
    item: TailItem,
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").finish_non_exhaustive()
    }
}

impl Default for Fanout {
    fn default() -> Self {
        Fanout::new()
    }
}

impl Fanout {
    pub fn new() -> Fanout {
        let shared = Shared {
            state: Mutex::default(),
            event_readers: AtomicUsize::new(0),
            closed: watch::Sender::new(false),
            membership: Questions::default(),
            observed: Questions::default(),
        };
        Fanout { shared: Arc::new(shared) }
    }

    /// Hands an alert to every reader of alerts.
    pub fn alert(&self, alert: &Arc<Alert>) {
        let mut state = self.shared.lock();
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(Arc::clone(alert));
        let weight = alert_weight(alert);
        for queue in state.queues.iter().filter(|queue| queue.want == Want::Alerts) {
            queue.push(TailItem::Alert(Arc::clone(alert)), weight);
        }
    }

    /// Hands an event to every reader of events.
    pub fn event(&self, event: &Arc<EventRecord>) {
        let weight = event_weight(event);
        for queue in self.shared.lock().queues.iter().filter(|queue| queue.want == Want::Events) {
            queue.push(TailItem::Event(Arc::clone(event)), weight);
        }
    }

    /// Whether anybody reads events: if not, they need not be built.
    pub fn wants_events(&self) -> bool {
        self.shared.event_readers.load(Ordering::Relaxed) > 0
    }

    /// Which process is whose: the pipeline answers when it has read its rings.
    pub(super) fn ask_membership(&self) -> oneshot::Receiver<Arc<Membership>> {
        self.shared.membership.ask()
    }

    /// What containers were seen to do: as above.
    pub(super) fn ask_observed(&self) -> oneshot::Receiver<Arc<Observed>> {
        self.shared.observed.ask()
    }

    /// Somebody waits for [`Fanout::answer`].
    pub fn is_asked(&self) -> bool {
        self.shared.membership.is_asked()
    }

    pub fn answer(&self, membership: Membership) {
        self.shared.membership.answer(membership);
    }

    /// Somebody waits for [`Fanout::answer_observed`].
    pub fn is_asked_observed(&self) -> bool {
        self.shared.observed.is_asked()
    }

    pub fn answer_observed(&self, observed: Observed) {
        self.shared.observed.answer(observed);
    }

    /// A new reader. With `recent`, the last alerts come first, and none comes twice.
    pub(crate) fn subscribe(&self, want: Want, recent: bool, metrics: SinkMetrics) -> Subscription {
        let level = Arc::new(Level::default());
        let (sender, receiver) = mpsc::channel(if want == Want::Alerts { ALERTS } else { EVENTS });
        let mut state = self.shared.lock();
        let first =
            if recent && want == Want::Alerts { state.recent.iter().cloned().collect() } else { Vec::new() };
        // After the close, the queue has no writing end, and so the reader sees its end at once.
        if !*self.shared.closed.borrow() {
            state.queues.push(Queue { want, sender, level: Arc::clone(&level), metrics });
        }
        drop(state);
        if want == Want::Events {
            self.shared.event_readers.fetch_add(1, Ordering::Relaxed);
        }
        Subscription {
            want,
            receiver,
            level,
            first: first.into_iter().map(TailItem::Alert).collect(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Nothing comes after this; readers see the end when they have read what is queued.
    pub fn close(&self) {
        self.shared.closed.send_replace(true);
        self.shared.lock().queues.clear();
        self.shared.membership.close();
        self.shared.observed.close();
    }

    /// Ready once closed.
    pub(super) async fn closed(&self) {
        // The sender lives as long as `self`, so there is no other way to end.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&self, item: TailItem, weight: usize) {
        // Only this side adds, so the bound holds; one item always fits.
        let queued = self.level.bytes.load(Ordering::Relaxed);
        if (queued == 0 || queued + weight <= BYTES)
            && let Ok(place) = self.sender.try_reserve()
        {
            self.level.bytes.fetch_add(weight, Ordering::Relaxed);
            place.send(Queued { missed_before: self.level.missed.swap(0, Ordering::Relaxed), weight, item });
        } else if !self.sender.is_closed() {
            self.level.missed.fetch_add(1, Ordering::Relaxed);
            self.metrics.dropped(DropReason::QueueFull, 1);
        }
    }
}

/// The reading end of a queue.
pub struct Subscription {
    want: Want,
    receiver: mpsc::Receiver<Queued>,
    level: Arc<Level>,
    /// What comes before anything from the queue.
    first: VecDeque<TailItem>,
    shared: Arc<Shared>,
}

impl Subscription {
    /// The next item; `None` at the end. Can be dropped while it waits without losing anything.
    pub async fn recv(&mut self) -> Option<TailItem> {
        match self.try_recv() {
            Ok(item) => Some(item),
            Err(_) => self.receiver.recv().await.map(|queued| self.unpack(queued)).or_else(|| self.missed()),
        }
    }

    /// The same for a thread.
    pub fn blocking_recv(&mut self) -> Option<TailItem> {
        match self.try_recv() {
            Ok(item) => Some(item),
            Err(_) => {
                self.receiver.blocking_recv().map(|queued| self.unpack(queued)).or_else(|| self.missed())
            }
        }
    }

    /// What is there now.
    pub fn try_recv(&mut self) -> Result<TailItem, mpsc::error::TryRecvError> {
        if let Some(item) = self.first.pop_front() {
            return Ok(item);
        }
        match self.receiver.try_recv() {
            Ok(queued) => Ok(self.unpack(queued)),
            // What was dropped when the queue was last full comes after everything that was in it.
            Err(error) => self.missed().ok_or(error),
        }
    }

    fn unpack(&mut self, queued: Queued) -> TailItem {
        self.level.bytes.fetch_sub(queued.weight, Ordering::Relaxed);
        if queued.missed_before == 0 {
            return queued.item;
        }
        self.first.push_back(queued.item);
        TailItem::Missed(queued.missed_before)
    }

    fn missed(&self) -> Option<TailItem> {
        let count = self.level.missed.swap(0, Ordering::Relaxed);
        (count > 0).then_some(TailItem::Missed(count))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.want == Want::Events {
            self.shared.event_readers.fetch_sub(1, Ordering::Relaxed);
        }
        self.shared.lock().queues.retain(|queue| !Arc::ptr_eq(&queue.level, &self.level));
    }
}

/// About what an item takes in memory: its fixed parts and small strings, and those parts that can be long.
fn alert_weight(alert: &Alert) -> usize {
    1536 + alert.message.len() + alert.process.as_ref().map_or(0, process_weight)
}

fn event_weight(event: &EventRecord) -> usize {
    let texts = [&event.detail.path, &event.detail.arguments];
    1024 + texts.into_iter().flatten().map(String::len).sum::<usize>() + process_weight(&event.process)
}

fn process_weight(process: &ProcessRef) -> usize {
    // A string costs its own size and the allocator's share beside its bytes.
    process.args.iter().map(|arg| arg.len() + 40).sum::<usize>() + process.ancestors.len() * 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sinks::protocol::sample, telemetry::Metrics};

    fn subscribe(fanout: &Fanout, want: Want, recent: bool) -> Subscription {
        fanout.subscribe(want, recent, Metrics::new().sink("test", false))
    }

    fn drained(subscription: &mut Subscription) -> Vec<String> {
        std::iter::from_fn(|| subscription.try_recv().ok())
            .map(|item| match item {
                TailItem::Alert(alert) => alert.message.clone(),
                TailItem::Event(event) => event.kind.clone(),
                TailItem::Missed(count) => format!("missed {count}"),
            })
            .collect()
    }

    #[test]
    fn each_reader_gets_what_it_asked_for() {
        let fanout = Fanout::new();
        let mut alerts = subscribe(&fanout, Want::Alerts, false);
        assert!(!fanout.wants_events());
        let mut events = subscribe(&fanout, Want::Events, false);
        assert!(fanout.wants_events());
        fanout.alert(&sample::alert("a"));
        fanout.event(&sample::event("exec"));
        assert_eq!(drained(&mut alerts), ["a"]);
        assert_eq!(drained(&mut events), ["exec"]);
        drop(events);
        assert!(!fanout.wants_events());
        assert_eq!(fanout.shared.lock().queues.len(), 1);
    }

    #[test]
    fn what_finds_no_room_is_counted_in_its_place() {
        let fanout = Fanout::new();
        let metrics = Metrics::new();
        let mut reader = fanout.subscribe(Want::Alerts, false, metrics.sink("stdout", true));
        for n in 0..ALERTS + 3 {
            fanout.alert(&sample::alert(&n.to_string()));
        }
        // Still three missing after the last one in the queue ...
        let first = drained(&mut reader);
        let queued = first.len() - 1;
        assert!(
            queued > 1000 && first[queued] == format!("missed {}", ALERTS + 3 - queued),
            "{}",
            first[queued]
        );
        assert_eq!(first[queued - 1], (queued - 1).to_string());
        // ... and told before the next if that comes first.
        for n in 0..ALERTS + 3 {
            fanout.alert(&sample::alert(&n.to_string()));
        }
        assert!(matches!(reader.try_recv(), Ok(TailItem::Alert(_))));
        fanout.alert(&sample::alert("late"));
        let second = drained(&mut reader);
        let end = &second[second.len() - 2..];
        assert_eq!(end, [format!("missed {}", ALERTS + 3 - queued), "late".to_owned()]);
        let text = metrics.expose(false);
        let dropped = (ALERTS + 3 - queued) * 2;
        assert!(
            text.contains(&format!(
                "observer_sink_dropped_total{{reason=\"queue_full\",sink=\"stdout\"}} {dropped}\n"
            )),
            "{text}"
        );
        assert_eq!(metrics.lost_total(), dropped as u64);
    }

    #[test]
    fn long_arguments_cannot_take_all_memory() {
        let fanout = Fanout::new();
        let mut reader = subscribe(&fanout, Want::Events, false);
        let mut event = (*sample::event("exec")).clone();
        event.process.args = vec!["x".repeat(1 << 20)];
        let event = Arc::new(event);
        for _ in 0..20 {
            fanout.event(&event);
        }
        let got = drained(&mut reader);
        assert_eq!(got.last().map(String::as_str), Some("missed 13"));
        assert_eq!(reader.level.bytes.load(Ordering::Relaxed), 0);
        // One that alone is beyond the bound still fits an empty queue.
        let mut huge = (*event).clone();
        huge.process.args = vec!["x".repeat(BYTES * 2)];
        fanout.event(&Arc::new(huge));
        assert_eq!(drained(&mut reader), ["exec"]);
    }

    #[test]
    fn the_last_alerts_come_first_and_once() {
        let fanout = Fanout::new();
        for n in 0..RECENT + 5 {
            fanout.alert(&sample::alert(&n.to_string()));
        }
        let mut reader = subscribe(&fanout, Want::Alerts, true);
        fanout.alert(&sample::alert("new"));
        let got = drained(&mut reader);
        assert_eq!((got.len(), got[0].as_str(), got[RECENT].as_str()), (RECENT + 1, "5", "new"));
    }

    #[test]
    fn after_the_close_readers_see_the_rest_and_the_end() {
        let fanout = Fanout::new();
        let mut reader = subscribe(&fanout, Want::Alerts, false);
        fanout.alert(&sample::alert("last"));
        fanout.close();
        fanout.alert(&sample::alert("too late"));
        assert!(matches!(reader.blocking_recv(), Some(TailItem::Alert(alert)) if alert.message == "last"));
        assert!(reader.blocking_recv().is_none());
        assert!(subscribe(&fanout, Want::Alerts, false).blocking_recv().is_none());
    }
}
