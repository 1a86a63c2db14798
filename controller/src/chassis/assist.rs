//! Questions to chassis: each holds a stream by which it is asked, one after the other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferroflow_proto::{
    chassis::{self as pb, answer::Result as Answered, assist_request::Message},
    host,
};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    access::Caller,
    controller::{Controller, Ending},
    resource::check_id,
};

/// How long a chassis may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Questions that wait for one chassis.
const QUEUE: usize = 64;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody to ask.
    #[error("it is not connected")]
    NotConnected,
    /// Too much is asked of it.
    #[error("too many questions wait for it; ask again")]
    Busy,
    /// It is gone, or slow.
    #[error("it did not answer within {} s", ANSWER_LIMIT.as_secs())]
    NoAnswer,
    /// What it says.
    #[error("{0}")]
    Refused(String),
}

/// Those who can be asked, and what they have been.
#[derive(Debug, Default)]
pub struct Assistants {
    next: AtomicU64,
    streams: Mutex<BTreeMap<String, Stream>>,
    /// Each with the chassis it is for.
    waiting: Mutex<HashMap<u64, (String, oneshot::Sender<Answered>)>>,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    questions: mpsc::Sender<pb::AssistResponse>,
}

impl Assistants {
    /// Asks a chassis for a trace.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn trace(
        &self,
        chassis: &str,
        question: host::TraceRequest,
    ) -> Result<host::TraceResponse, AskError> {
        let questions = lock(&self.streams).get(chassis).map(|stream| stream.questions.clone());
        let questions = questions.ok_or(AskError::NotConnected)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(id, (chassis.to_owned(), answer));
        let asked = questions.try_send(pb::AssistResponse { id, trace: Some(question) });
        let answered = match asked {
            Ok(()) => tokio::time::timeout(ANSWER_LIMIT, answered).await.ok().and_then(Result::ok),
            Err(_) => {
                lock(&self.waiting).remove(&id);
                return Err(AskError::Busy);
            }
        };
        lock(&self.waiting).remove(&id);
        match answered.ok_or(AskError::NoAnswer)? {
            Answered::Trace(traced) => Ok(traced),
            Answered::Error(reason) => Err(AskError::Refused(reason)),
        }
    }

    /// Nobody answers for another.
    fn answered(&self, chassis: &str, pb::Answer { id, result }: pb::Answer) {
        let mut waiting = lock(&self.waiting);
        if waiting.get(&id).is_some_and(|(asked, _)| asked == chassis)
            && let (Some((_, answer)), Some(result)) = (waiting.remove(&id), result)
        {
            // Who has gone away is not told.
            let _ = answer.send(result);
        }
    }

    fn connect(&self, chassis: &str, questions: mpsc::Sender<pb::AssistResponse>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // The newest is the one that lives.
        lock(&self.streams).insert(chassis.to_owned(), Stream { number, questions });
        number
    }

    fn disconnect(&self, chassis: &str, number: u64) {
        let mut streams = lock(&self.streams);
        if streams.get(chassis).is_some_and(|stream| stream.number == number) {
            streams.remove(chassis);
        }
    }
}

/// Begins to ask a chassis; ends with its stream.
pub(super) async fn start(
    controller: Arc<Controller>,
    caller: &Caller,
    mut requests: Streaming<pb::AssistRequest>,
) -> Result<BoxStream<'static, Result<pb::AssistResponse, Status>>, Status> {
    let first = tokio::time::timeout(HELLO_LIMIT, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
    let Some(Message::Hello(hello)) = first.and_then(|request| request.message) else {
        return Err(Status::invalid_argument("the first message must be `hello`"));
    };
    caller.check_speaks_for(&hello.chassis)?;
    check_id(&hello.chassis)
        .map_err(|error| Status::invalid_argument(format!("field `chassis`: {error}")))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(read(controller, requests, hello.chassis, sender));
    Ok(Box::pin(ReceiverStream::new(receiver).map(Ok)))
}

async fn read(
    controller: Arc<Controller>,
    mut requests: Streaming<pb::AssistRequest>,
    chassis: String,
    questions: mpsc::Sender<pb::AssistResponse>,
) {
    let number = controller.assistants.connect(&chassis, questions.clone());
    let mut ending = controller.ending();
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            () = questions.closed() => break,
            _ = ending.wait_for(Option::<Ending>::is_some) => break,
        };
        match request {
            Ok(Some(pb::AssistRequest { message: Some(Message::Answer(answer)) })) => {
                controller.assistants.answered(&chassis, answer);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    controller.assistants.disconnect(&chassis, number);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u64, verdict: &str) -> pb::Answer {
        let traced = host::TraceResponse { verdict: verdict.to_owned(), ..Default::default() };
        pb::Answer { id, result: Some(Answered::Trace(traced)) }
    }

    #[tokio::test]
    async fn only_who_was_asked_answers() {
        let assistants = Arc::new(Assistants::default());
        assert_eq!(assistants.trace("h1", Default::default()).await, Err(AskError::NotConnected));
        let (sender, mut questions) = mpsc::channel(QUEUE);
        let number = assistants.connect("h1", sender);
        let asking = Arc::clone(&assistants);
        let asked = tokio::spawn(async move { asking.trace("h1", Default::default()).await });
        let id = questions.recv().await.unwrap().id;
        assistants.answered("h2", answer(id, "forged"));
        assistants.answered("h1", answer(id + 1, "unasked"));
        assistants.answered("h1", answer(id, "forwarded"));
        assistants.answered("h1", answer(id, "again"));
        assert_eq!(asked.await.unwrap().unwrap().verdict, "forwarded");
        assert!(lock(&assistants.waiting).is_empty());
        // An older stream that ends does not take the newer one along.
        let (sender, _questions) = mpsc::channel(QUEUE);
        assistants.connect("h1", sender);
        assistants.disconnect("h1", number);
        assert!(lock(&assistants.streams).contains_key("h1"));
    }
}
