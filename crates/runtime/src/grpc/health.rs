//! `grpc.health.v1`, fed by the process's readiness. Written here, and not taken from tonic-health, because its streams
//! must end on shutdown too.

use tonic::{Request, Response, Status, codegen::BoxStream};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::stream::Streams;
use crate::Readiness;

#[derive(Debug)]
pub struct Service {
    name: &'static str,
    readiness: Readiness,
    streams: Streams,
}

/// Of a server whose one service has this name.
pub fn service(name: &'static str, readiness: Readiness, streams: Streams) -> HealthServer<Service> {
    HealthServer::new(Service {
        name,
        readiness,
        streams,
    })
}

impl Service {
    /// The server as a whole, or its one service.
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || service == self.name
    }
}

fn response(ready: bool) -> HealthCheckResponse {
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("no such service here"));
        }
        Ok(Response::new(response(self.readiness.is_ready())))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.get_ref().service);
        let mut ready = self.readiness.subscribe();
        let stream = self.streams.open("watch-health", |sink| async move {
            if !known {
                // As the protocol asks: the service may come; here it never does.
                let unknown = HealthCheckResponse {
                    status: ServingStatus::ServiceUnknown.into(),
                };
                if sink.send(unknown).await.is_ok() {
                    sink.closed().await;
                }
                return;
            }
            loop {
                let now = *ready.borrow_and_update();
                if sink.send(response(now)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = ready.changed() => if changed.is_err() { return },
                    _ = sink.closed() => return,
                }
            }
        });
        stream.map(Response::new).map_err(Status::from)
    }
}
