//! Questions that only the pipeline's thread can answer, because only it sees the tables. It looks whether somebody asks
//! whenever it has read the rings, at least every 20 ms, and answers all who wait at once.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::oneshot;

/// Those who wait for an answer.
pub(super) struct Questions<T> {
    asked: AtomicBool,
    waiting: Mutex<Vec<oneshot::Sender<Arc<T>>>>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Questions { asked: AtomicBool::new(false), waiting: Mutex::default() }
    }
}

impl<T> Questions<T> {
    /// The answer is dropped, and the receiver sees that, if the pipeline ends before it answers.
    pub fn ask(&self) -> oneshot::Receiver<Arc<T>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.asked.store(true, Ordering::Release);
        receiver
    }

    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn answer(&self, answer: T) {
        self.asked.store(false, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = Arc::new(answer);
        for asker in waiting {
            // One that went away needs no answer.
            let _ = asker.send(Arc::clone(&answer));
        }
    }

    /// Nobody will answer any more.
    pub fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
