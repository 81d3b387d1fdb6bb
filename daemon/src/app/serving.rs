//! The serving thread: gRPC and the book together, on one thread of their own.
//!
//! Together, because a Reserve then crosses no thread (that was more than a third of its cost). Apart from the rest,
//! because the book may wait for the disk: then calls wait, and the admin endpoint, the kubelet's poller and the shutdown
//! do not.

use std::{io, net::SocketAddr, path::Path};

use berth_runtime::{
    Tasks,
    listen::{Listen, ListenError},
    tls::ServerTls,
};
use tokio::{runtime::Runtime, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::error;

use crate::book::Actor;

/// The thread's runtime with the sockets that are bound in it.
pub(super) struct Serving {
    /// `None` once it is started. A runtime must not be dropped inside another one.
    runtime: Option<Runtime>,
    listen: Listen,
}

/// When to stop what, and who is to be told.
pub(super) struct Stops {
    pub(super) accepting: CancellationToken,
    pub(super) book: CancellationToken,
    /// Dropped when every call has ended.
    pub(super) served: oneshot::Sender<()>,
}

impl Serving {
    pub(super) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            runtime: Some(runtime),
            listen: Listen::new(),
        })
    }

    /// Binds both sockets; returns what was bound for TCP.
    pub(super) fn bind(
        &mut self,
        tcp: SocketAddr,
        tls: Option<ServerTls>,
        socket: &Path,
    ) -> Result<SocketAddr, ListenError> {
        // Sockets belong to the runtime in which they are bound.
        let _inside = self.runtime.as_ref().map(Runtime::enter);
        let bound = self.listen.tcp(tcp, tls)?;
        self.listen.unix(socket)?;
        Ok(bound)
    }

    /// Starts the thread; it ends with the book.
    pub(super) fn start(
        mut self,
        tasks: &Tasks,
        routes: Routes,
        traced: bool,
        actor: Actor,
        stops: Stops,
    ) -> io::Result<()> {
        let listen = std::mem::take(&mut self.listen);
        let Some(runtime) = self.runtime.take() else {
            return Ok(());
        };
        let inside = tasks.clone();
        tasks.spawn_thread("serving", move || {
            runtime.block_on(async move {
                let book = inside.spawn("book", actor.run(stops.book));
                let incoming = listen.start(&inside, &stops.accepting);
                if let Err(error) = berth_runtime::grpc::serve(routes, traced, incoming, stops.accepting).await {
                    error!(
                        error = &error as &dyn std::error::Error,
                        "the gRPC server ended by an error"
                    );
                }
                drop(stops.served);
                // A panic in there has been told, and ends the process.
                book.await.ok();
            });
        })?;
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
