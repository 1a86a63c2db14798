//! Questions to the switch that many ask at a time: what waits while others are served is
//! served together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::host::{Host, SharedHost};

/// Questions that wait, each with who asks.
type Waiting<Q, A> = Vec<(Q, oneshot::Sender<A>)>;

/// Those who ask the same of the switch.
pub(super) struct Together<Q, A> {
    waiting: Arc<Mutex<Waiting<Q, A>>>,
}

impl<Q, A> Default for Together<Q, A> {
    fn default() -> Self {
        Self { waiting: Arc::default() }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    /// Asks; `act` answers all questions, in order. `None`: it has answered fewer.
    pub(super) async fn ask(
        &self,
        host: &SharedHost,
        question: Q,
        act: impl FnOnce(&mut Host, &[Q]) -> Vec<A> + Send + 'static,
    ) -> Option<A> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).push((question, sender));
        let waiting = Arc::clone(&self.waiting);
        host.with(move |host| {
            // Nothing waits any more when somebody else's turn has been earlier.
            let (questions, senders): (Vec<_>, Vec<_>) =
                std::mem::take(&mut *lock(&waiting)).into_iter().unzip();
            if questions.is_empty() {
                return;
            }
            for (answer, sender) in act(host, &questions).into_iter().zip(senders) {
                // Who does not wait any more needs no answer.
                let _ = sender.send(answer);
            }
        })
        .await;
        receiver.await.ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
