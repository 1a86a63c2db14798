//! The answer of a worker to who waits for it. He sleeps at once: to look for it again and again would
//! take time from the worker where they share a core, and there each look costs a turn of all others.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What has become of a question.
#[derive(Debug)]
enum State<T> {
    Open,
    Answered(T),
    /// Nobody will answer.
    Dropped,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Who answers. Dropped before, there is no answer.
#[derive(Debug)]
pub(super) struct Answerer<T>(Arc<Shared<T>>);

/// Who waits for it.
#[derive(Debug)]
pub(super) struct Asker<T>(Arc<Shared<T>>);

/// Both sides of a question.
pub(super) fn question<T>() -> (Answerer<T>, Asker<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Open), changed: Condvar::new() });
    (Answerer(Arc::clone(&shared)), Asker(shared))
}

impl<T> Answerer<T> {
    pub(super) fn answer(self, answer: T) {
        *self.0.lock() = State::Answered(answer);
    }
}

impl<T> Drop for Answerer<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Open) {
            *state = State::Dropped;
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl<T> Asker<T> {
    /// Waits. `None`: there is no answer.
    pub(super) fn wait(self) -> Option<T> {
        let is_open = |state: &mut State<T>| matches!(state, State::Open);
        let waited = self.0.changed.wait_while(self.0.lock(), is_open);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Dropped) {
            State::Answered(answer) => Some(answer),
            State::Open | State::Dropped => None,
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_gets_there_and_so_does_that_there_is_none() {
        let (answerer, asker) = question();
        let answering = thread::spawn(move || answerer.answer(7));
        assert_eq!(asker.wait(), Some(7));
        answering.join().unwrap();
        let (answerer, asker) = question::<u32>();
        let asking = thread::spawn(move || asker.wait());
        drop(answerer);
        assert_eq!(asking.join().unwrap(), None);
        let (answerer, asker) = question::<u32>();
        drop(asker);
        answerer.answer(7);
    }
}
