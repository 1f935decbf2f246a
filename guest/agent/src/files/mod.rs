//! File operations. Everything here blocks and runs on tokio's blocking threads, as the user that the request names.

pub mod archive;
pub mod identity;
pub mod locate;
pub mod ops;
pub mod transfer;
pub mod watch;

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::error::{AgentError, Result};
use crate::processors;

/// Bytes in flight between the stream and the disk: chunks of at most [`CHUNK_BYTES`].
const QUEUE: usize = 8;
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Runs blocking work and waits for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> std::result::Result<T, Status> {
    let work = || {
        processors::roam();
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Status::from),
        Err(error) => Err(AgentError::new("io_error", format!("the operation was cut short: {error}")).into()),
    }
}

/// What a blocking consumer gets of a request stream: data, the end (`None`), or the news that the host gave up.
pub type Incoming = mpsc::Receiver<std::result::Result<bytes::Bytes, Abandoned>>;

/// The stream broke off before its end.
#[derive(Debug)]
pub struct Abandoned;

/// Feeds the data messages of `stream` to a blocking consumer.
pub fn pump<M, S>(mut stream: S, data_of: fn(M) -> Option<bytes::Bytes>) -> Incoming
where
    M: Send + 'static,
    S: Stream<Item = std::result::Result<M, Status>> + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(message) = stream.next().await {
            let item = match message {
                Ok(message) => match data_of(message) {
                    Some(bytes) => Ok(bytes),
                    None => continue,
                },
                Err(_) => Err(Abandoned),
            };
            let over = item.is_err();
            // The consumer has gone when it failed; its own error is what the host hears.
            if sender.send(item).await.is_err() || over {
                return;
            }
        }
    });
    receiver
}

/// A response stream fed from a blocking thread.
pub type Outgoing<M> = mpsc::Sender<std::result::Result<M, Status>>;

pub fn outgoing<M>() -> (Outgoing<M>, tokio_stream::wrappers::ReceiverStream<std::result::Result<M, Status>>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (sender, tokio_stream::wrappers::ReceiverStream::new(receiver))
}
