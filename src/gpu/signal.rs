//! A value that a callback hands to a future.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// The callback's end.
pub(super) struct Sender<T>(Arc<Mutex<State<T>>>);

/// The awaiting end. It yields `None` if the sender was dropped without a value.
pub(super) struct Receiver<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    value: Option<T>,
    sender_dropped: bool,
    waker: Option<Waker>,
}

/// Both ends for one value.
pub(super) fn signal<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Mutex::new(State { value: None, sender_dropped: false, waker: None }));
    (Sender(state.clone()), Receiver(state))
}

impl<T> Sender<T> {
    pub(super) fn send(self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.sender_dropped = true;
            state.waker.take()
        };
        // Without the lock: an executor may poll the receiver at once.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.sender_dropped {
            return Poll::Ready(state.value.take());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_sent_on_another_thread_wakes_the_future() {
        let (sender, receiver) = signal();
        let thread = std::thread::spawn(move || sender.send(7));
        assert_eq!(pollster::block_on(receiver), Some(7));
        thread.join().unwrap();
    }

    #[test]
    fn a_callback_that_is_dropped_ends_the_wait() {
        let (sender, receiver) = signal::<u32>();
        let thread = std::thread::spawn(move || drop(sender));
        assert_eq!(pollster::block_on(receiver), None);
        thread.join().unwrap();
    }
}
