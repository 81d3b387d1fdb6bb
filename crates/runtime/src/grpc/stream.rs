//! Server streams: the one way to make one, so that every stream is counted, bounded, and ends on shutdown.
//!
//! tonic's graceful shutdown waits for open streams without a deadline of its own: a stream that does not end by itself
//! would hold the process.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, codegen::BoxStream};

use super::status::refusal;
use crate::Tasks;

/// Streams that are open at a time: a watch for each scheduler replica and the operator's curiosity, and a lease for each
/// job on a box without Kubernetes. Each costs a task and a few KiB.
const MAX_STREAMS: usize = 1024;

/// There are as many streams as one process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{limit} streams are served at a time, and they are: close one")]
pub struct TooManyStreams {
    pub limit: usize,
}

/// What a stream tells last when the process ends.
pub fn draining() -> Status {
    refusal(Code::Unavailable, "Draining", "the process is shutting down")
}

/// Makes streams.
#[derive(Debug, Clone)]
pub struct Streams {
    slots: Arc<Semaphore>,
    end: CancellationToken,
    tasks: Tasks,
}

/// Where a stream's producer puts its messages.
#[derive(Debug)]
pub struct Sink<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    end: CancellationToken,
}

/// Why a stream takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client is gone: it cancelled, it died, its connection broke.
    ClientGone,
    /// The process ends.
    Shutdown,
}

struct Ending<T> {
    messages: mpsc::Receiver<Result<T, Status>>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
    _slot: OwnedSemaphorePermit,
}

impl Streams {
    /// Every stream ends when `end` is cancelled.
    pub fn new(end: CancellationToken, tasks: Tasks) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_STREAMS)),
            end,
            tasks,
        }
    }

    /// A stream of what `produce` sends. The producer is a task of its own: it is never dropped half way, and should
    /// return once its sink is [`Sink::closed`].
    pub fn open<T, F>(
        &self,
        name: &'static str,
        produce: impl FnOnce(Sink<T>) -> F,
    ) -> Result<BoxStream<T>, TooManyStreams>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::clone(&self.slots);
        let slot = slots
            .try_acquire_owned()
            .map_err(|_| TooManyStreams { limit: MAX_STREAMS })?;
        // One message: a slow reader skips states instead of piling them up.
        let (sender, messages) = mpsc::channel(1);
        let sink = Sink {
            messages: sender,
            end: self.end.clone(),
        };
        drop(self.tasks.spawn(name, produce(sink)));
        let end = Box::pin(self.end.clone().cancelled_owned());
        Ok(Box::pin(Ending {
            messages,
            end,
            over: false,
            _slot: slot,
        }))
    }
}

impl<T> Sink<T> {
    /// Waits while the reader is slow.
    pub async fn send(&self, message: T) -> Result<(), Closed> {
        self.put(Ok(message)).await
    }

    /// The last thing that a stream tells.
    pub async fn fail(self, error: impl Into<Status>) {
        // Closed: nobody is left to be told.
        self.put(Err(error.into())).await.ok();
    }

    async fn put(&self, message: Result<T, Status>) -> Result<(), Closed> {
        tokio::select! {
            // First, or a reader that reads nothing would hold the shutdown.
            biased;
            () = self.end.cancelled() => Err(Closed::Shutdown),
            sent = self.messages.send(message) => sent.map_err(|_| self.why()),
        }
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) -> Closed {
        tokio::select! {
            () = self.end.cancelled() => Closed::Shutdown,
            () = self.messages.closed() => self.why(),
        }
    }

    /// On shutdown the reading end closes too.
    fn why(&self) -> Closed {
        if self.end.is_cancelled() {
            Closed::Shutdown
        } else {
            Closed::ClientGone
        }
    }
}

impl<T> Stream for Ending<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.end.as_mut().poll(cx).is_ready() {
            self.over = true;
            return Poll::Ready(Some(Err(draining())));
        }
        self.messages.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shutdown;
    use tokio_stream::StreamExt as _;

    fn streams() -> (Streams, CancellationToken, Tasks) {
        let end = CancellationToken::new();
        let tasks = Tasks::new(Shutdown::new());
        (Streams::new(end.clone(), tasks.clone()), end, tasks)
    }

    #[tokio::test]
    async fn an_idle_stream_ends_on_shutdown_and_says_why() {
        let (streams, end, tasks) = streams();
        let mut stream = streams
            .open("t", |sink| async move {
                sink.send(1).await.unwrap();
                assert_eq!(sink.closed().await, Closed::Shutdown);
            })
            .unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        end.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(stream.next().await.is_none());
        tasks.join().await;
    }

    #[tokio::test]
    async fn a_reader_that_reads_nothing_does_not_hold_the_producer_on_shutdown() {
        let (streams, end, tasks) = streams();
        let _stream = streams
            .open("t", |sink| async move { while sink.send(1).await.is_ok() {} })
            .unwrap();
        end.cancel();
        tasks.join().await;
    }

    #[tokio::test]
    async fn a_dropped_stream_is_a_client_gone_and_frees_its_slot() {
        let (streams, _end, tasks) = streams();
        let stream = streams
            .open::<(), _>("t", |sink| async move {
                assert_eq!(sink.closed().await, Closed::ClientGone);
            })
            .unwrap();
        assert_eq!(streams.slots.available_permits(), MAX_STREAMS - 1);
        drop(stream);
        tasks.join().await;
        assert_eq!(streams.slots.available_permits(), MAX_STREAMS);
    }
}
