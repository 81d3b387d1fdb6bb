//! HTTP/2 in clear text, which the real service takes by prior knowledge.

use std::{convert::Infallible, sync::Arc};

use axum::body::{Body, to_bytes};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::net::TcpStream;
use tower::service_fn;

use super::{Answer, Fake, LONGEST_BODY, Outcome, Request};

pub(super) async fn serve(stream: TcpStream, fake: Arc<Fake>) {
    let service = service_fn(move |request: http::Request<_>| {
        let fake = Arc::clone(&fake);
        async move { Ok::<_, Infallible>(answer(request.map(Body::new), &fake).await) }
    });
    let builder = Builder::new(TokioExecutor::new()).http2_only();
    // A closed or broken connection is the client's business.
    drop(
        builder
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .await,
    );
}

async fn answer(request: http::Request<Body>, fake: &Fake) -> http::Response<Body> {
    let (parts, body) = request.into_parts();
    let mut headers: Vec<(String, String)> = parts
        .uri
        .authority()
        .map(|host| ("host".to_owned(), host.to_string()))
        .into_iter()
        .collect();
    headers.extend(parts.headers.iter().map(|(name, value)| {
        let value = value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        (name.as_str().to_owned(), value)
    }));
    let Ok(body) = to_bytes(body, LONGEST_BODY).await else {
        return response(Answer::container());
    };
    let request = Request {
        method: parts.method.to_string(),
        target: parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned(),
        headers,
        body: body.to_vec(),
    };
    match fake.answer(request).await {
        Outcome::Answer(answer) => response(answer),
        Outcome::Hang => std::future::pending().await,
        Outcome::Close => response(Answer::empty(500)),
    }
}

fn response(answer: Answer) -> http::Response<Body> {
    let mut response = http::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(answer.body)).unwrap_or_default()
}
