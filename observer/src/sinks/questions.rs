//! Questions that only the pipeline's thread can answer, because only it sees the tables. It looks whether somebody asks
//! whenever it has read the rings, at least every 20 ms, and answers all who wait at once.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::oneshot;

use crate::inventory::Membership;

/// Those who wait for an answer.
#[derive(Default)]
pub(super) struct Questions {
    asked: AtomicBool,
    waiting: Mutex<Vec<oneshot::Sender<Arc<Membership>>>>,
}

impl Questions {
    /// The answer is dropped, and the receiver sees that, if the pipeline ends before it answers.
    pub fn ask(&self) -> oneshot::Receiver<Arc<Membership>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.asked.store(true, Ordering::Release);
        receiver
    }

    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn answer(&self, membership: Membership) {
        self.asked.store(false, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let membership = Arc::new(membership);
        for asker in waiting {
            // One that went away needs no answer.
            let _ = asker.send(Arc::clone(&membership));
        }
    }

    /// Nobody will answer any more.
    pub fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
