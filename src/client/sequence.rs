//! The numbers of batches: what lets an ENQUEUE be sent again without enqueuing twice.
//!
//! The server remembers the last 64 numbers of a producer and queue. So a batch gets a number only
//! while the oldest one that is not answered stays among the last 64: no answer can get lost so
//! long that nobody knows it any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use joblog_protocol::limits::PRODUCER_WINDOW;
use joblog_protocol::messages::enqueue::Producer;
use tokio::sync::Notify;

/// The numbers of one client, by queue.
#[derive(Debug)]
pub(crate) struct Sequences {
    producer: [u8; 16],
    queues: Mutex<HashMap<Box<str>, Arc<OfQueue>>>,
}

#[derive(Debug, Default)]
struct OfQueue {
    numbers: Mutex<Numbers>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    unanswered: BTreeSet<u64>,
}

/// The number of a batch that is under way. When it is dropped, its answer is there, or nobody will
/// send the batch again.
#[derive(Debug)]
pub(crate) struct Sequence {
    producer: [u8; 16],
    number: u64,
    of: Arc<OfQueue>,
}

impl Sequences {
    pub(crate) fn new(producer: [u8; 16]) -> Self {
        Self { producer, queues: Mutex::default() }
    }

    /// The next number for a queue, when there is a place for it.
    pub(crate) async fn next(&self, queue: &str) -> Sequence {
        let of = {
            let mut queues = lock(&self.queues);
            match queues.get(queue) {
                Some(of) => Arc::clone(of),
                None => Arc::clone(queues.entry(queue.into()).or_default()),
            }
        };
        loop {
            let answered = of.answered.notified();
            let next = lock(&of.numbers).next();
            match next {
                None => answered.await,
                Some(number) => {
                    let of = Arc::clone(&of);
                    return Sequence { producer: self.producer, number, of };
                }
            }
        }
    }
}

/// What is kept here is whole at every moment, so a panic elsewhere has not broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Numbers {
    fn next(&mut self) -> Option<u64> {
        let number = self.last + 1;
        let oldest = self.unanswered.first().copied().unwrap_or(number);
        if number - oldest >= PRODUCER_WINDOW as u64 {
            return None;
        }
        self.last = number;
        self.unanswered.insert(number);
        Some(number)
    }
}

impl Sequence {
    pub(crate) fn producer(&self) -> Producer {
        Producer { id: self.producer, sequence: self.number }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        lock(&self.of.numbers).unanswered.remove(&self.number);
        self.of.answered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_number_waits_until_the_oldest_unanswered_one_stays_in_the_window() {
        let sequences = Sequences::new([1; 16]);
        let oldest = sequences.next("q").await;
        for number in 2..=PRODUCER_WINDOW as u64 {
            // These are answered at once.
            assert_eq!(sequences.next("q").await.producer().sequence, number);
        }
        let mut waits = Box::pin(sequences.next("q"));
        let none = std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx))).await;
        assert!(none.is_pending());
        assert_eq!(sequences.next("other").await.producer().sequence, 1);
        drop(oldest);
        assert_eq!(waits.await.producer().sequence, PRODUCER_WINDOW as u64 + 1);
    }
}
