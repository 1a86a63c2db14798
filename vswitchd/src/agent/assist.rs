//! Answers what others ask of this host through the controller.

use std::time::Duration;

use ferroflow_proto::chassis::{
    Answer, AssistRequest, AssistResponse, answer::Result as Answered, assist_request::Message,
    chassis_service_client::ChassisServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{MAX_UPDATE_LEN, StreamError};
use crate::{host::SharedHost, service};

/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Answers under way.
const QUEUE: usize = 4;

/// Answers until the task is dropped: with the stream that goes with it.
pub(super) async fn run(host: SharedHost, channel: Channel) {
    loop {
        if let Err(error) = session(&host, channel.clone()).await {
            tracing::debug!(%error, "questions of others do not get here");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn session(host: &SharedHost, channel: Channel) -> Result<(), StreamError> {
    let mut client = ChassisServiceClient::new(channel).max_decoding_message_size(MAX_UPDATE_LEN);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let hello = host.with(|host| host.hello()).await;
    queue(&sender, Message::Hello(hello)).await?;
    let mut questions = client.assist(ReceiverStream::new(receiver)).await?.into_inner();
    while let Some(AssistResponse { id, trace }) = questions.message().await? {
        let Some(question) = trace else { continue };
        let traced = host.with(move |host| service::trace(host, question)).await;
        let result = match traced {
            Ok(traced) => Answered::Trace(traced),
            Err(error) => Answered::Error(error.to_string()),
        };
        queue(&sender, Message::Answer(Answer { id, result: Some(result) })).await?;
    }
    Err(StreamError::Ended)
}

async fn queue(sender: &mpsc::Sender<AssistRequest>, message: Message) -> Result<(), StreamError> {
    sender.send(AssistRequest { message: Some(message) }).await.map_err(|_| StreamError::Ended)
}
