//! For tests: an API server that gives prepared answers, one after the other, and keeps the patches that it was sent.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What was asked, to be looked at when all is over.
pub(crate) struct Double {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    patches: Arc<Mutex<Vec<Value>>>,
}

pub(crate) fn client(answers: impl IntoIterator<Item = (u16, Value)>) -> (Client, Double) {
    let double = Double {
        answers: Arc::new(Mutex::new(answers.into_iter().collect())),
        patches: Arc::default(),
    };
    let (answers, patches) = (Arc::clone(&double.answers), Arc::clone(&double.patches));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answers, patches) = (Arc::clone(&answers), Arc::clone(&patches));
        async move {
            let is_patch = request.method() == Method::PATCH;
            let body = request.into_body().collect_bytes().await.unwrap();
            if is_patch {
                patches.lock().push(serde_json::from_slice(&body).unwrap());
            }
            let (code, answer) = answers.lock().pop_front().unwrap();
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    (Client::new(service, "default"), double)
}

pub(crate) fn refused(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": "refused"})
}

impl Double {
    /// Asserts that all that was prepared was asked for.
    pub(crate) fn patches(&self) -> Vec<Value> {
        assert!(
            self.answers.lock().is_empty(),
            "not all that was prepared was asked for"
        );
        self.patches.lock().clone()
    }
}
