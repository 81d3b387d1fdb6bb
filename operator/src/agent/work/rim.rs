//! Does what the book wants done: Kubernetes, SIS, the streams. Decides nothing.

use std::{collections::HashMap, error::Error, sync::Arc};

use berth_runtime::kubernetes::ApiError;
use berth_sis::{
    ClusterId, SisClient, SisError,
    wire::{Acknowledge, InstanceUpdate},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::{
    book::Job,
    cause::{Cause, Told},
    cluster::Cluster,
    launch::{Site, launch},
    message::Wish,
    queue::Handle,
    request::{Effect, Outcome, Request, Ticket},
};

/// What the effects need.
pub(super) struct Rim {
    pub(super) cluster: Cluster,
    pub(super) sis: SisClient,
    pub(super) cluster_id: ClusterId,
    pub(super) namespace: String,
    /// Messages that their streams wait to hear about.
    pub(super) handles: Mutex<HashMap<Ticket, Open>>,
    /// Of stored wishes, by name.
    pub(super) owners: Mutex<HashMap<String, OwnerReference>>,
}

/// A message that is not settled.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) handle: Arc<Handle>,
    pub(super) receipt: String,
}

/// A job with what it needs of the book.
pub(super) struct Order {
    pub(super) job: Job,
    wish: Option<Wish>,
    object: Option<berth_kube_api::nvcf::icms_request::ICMSRequest>,
}

impl Order {
    pub(super) fn of(job: Job, request: Option<&Request>, rim: &Rim, ticket: Option<Ticket>) -> Self {
        let receipt = || {
            let handles = rim.handles.lock();
            let open = ticket.and_then(|ticket| handles.get(&ticket));
            open.map(|open| open.receipt.clone()).unwrap_or_default()
        };
        let is_store = matches!(job, Job::Wish(_, Effect::Store));
        Self {
            wish: request.map(|request| request.wish.clone()),
            object: request
                .filter(|_| is_store)
                .map(|request| request.object(&rim.namespace, &receipt())),
            job,
        }
    }
}

impl Rim {
    pub(super) async fn run(&self, order: &Order, site: &Site) -> Outcome {
        match (&order.job, &order.wish) {
            (Job::Wish(name, effect), Some(wish)) => self.effect(name, effect, wish, order, site).await,
            // The book does not forget a wish that has something to do.
            (Job::Wish(..), None) => Outcome::Later(None),
            (Job::Settle(ticket), _) => {
                let outcome = self.settle(*ticket).await;
                // It comes again, and the same instances end again.
                self.handles.lock().remove(ticket);
                outcome
            }
            (
                Job::Disown {
                    request_id, instance, ..
                },
                _,
            ) => {
                let update = Told::Terminated(Cause::User).update("TerminateInstances");
                self.report(request_id, instance, &update).await
            }
        }
    }

    async fn effect(&self, name: &str, effect: &Effect, wish: &Wish, order: &Order, site: &Site) -> Outcome {
        match effect {
            Effect::Store => {
                let Some(object) = &order.object else {
                    return Outcome::Later(None);
                };
                let stored = self.cluster.store(object).await;
                let stored = stored.map(|owner| drop(self.owners.lock().insert(name.to_owned(), owner)));
                // Its definition may come later.
                api(name, "store", stored, &[404])
            }
            Effect::Acknowledge => {
                let acknowledge = Acknowledge {
                    instance_count: wish.instances.into(),
                    message_batch_id: wish.message.message_batch_id.clone(),
                    status: Acknowledge::STATUS.to_owned(),
                };
                let id = &wish.message.request_id;
                sis(
                    name,
                    "acknowledge",
                    self.sis.acknowledge(&self.cluster_id, id, &acknowledge).await,
                )
            }
            Effect::Settle(ticket) => self.settle(*ticket).await,
            Effect::Make(instance) => {
                let Some(owner) = self.owners.lock().get(name).cloned() else {
                    return Outcome::Later(None);
                };
                let launch = match launch(wish, site, Some(&owner)) {
                    Ok(launch) => launch,
                    Err(error) => {
                        let text = error.to_string();
                        return Outcome::Refused { status: 422, text };
                    }
                };
                made(instance, self.cluster.make(&launch, instance).await)
            }
            Effect::Report(instance, told) => {
                let outcome = self
                    .report(&wish.message.request_id, instance, &told.update(wish.action()))
                    .await;
                if outcome == Outcome::Done {
                    let cause = if let Told::Terminated(cause) = told {
                        cause.word()
                    } else {
                        ""
                    };
                    info!(instance, state = told.word(), cause, "told SIS");
                }
                outcome
            }
            Effect::Delete(instance, version) => {
                let deleted = self.cluster.delete(instance, version.clone()).await;
                api(instance, "delete", deleted, &[])
            }
            Effect::Purge(instance) => api(instance, "purge", self.cluster.purge(instance).await, &[]),
            Effect::Save(status) => api(name, "save", self.cluster.save(name, status).await, &[]),
            Effect::Remove => api(name, "remove", self.cluster.remove(name).await, &[]),
        }
    }

    async fn report(&self, request_id: &str, instance: &str, update: &InstanceUpdate) -> Outcome {
        let told = self
            .sis
            .report_instance(&self.cluster_id, request_id, instance, update)
            .await;
        sis(instance, "report", told)
    }

    async fn settle(&self, ticket: Ticket) -> Outcome {
        let Some(open) = self.handles.lock().get(&ticket).cloned() else {
            return Outcome::Done;
        };
        if let Err(error) = open.handle.settle().await {
            let (receipt, error) = (&open.receipt, &error as &dyn Error);
            warn!(receipt, error, "a message is not settled");
            return Outcome::Later(None);
        }
        self.handles.lock().remove(&ticket);
        Outcome::Done
    }
}

/// How SIS says that it has no such request.
const NO_SUCH_REQUEST: &str = "Cannot find request with id";

fn sis(what: &str, doing: &str, result: Result<(), SisError>) -> Outcome {
    let Err(error) = result else { return Outcome::Done };
    let reason = error.reason();
    warn!(what, doing, reason, error = &error as &dyn Error, "SIS did not take it");
    // Any 404 but SIS's own word comes from something else on the way.
    let is_elsewhere = matches!(&error, SisError::NotFound { text } if !text.contains(NO_SUCH_REQUEST));
    if error.is_transient() || error.is_about_token() || error.status().is_none() || is_elsewhere {
        return Outcome::Later(error.retry_after());
    }
    Outcome::Refused {
        status: error.status().unwrap_or_default(),
        text: error.chain(),
    }
}

/// The namespace may come later; a quota may have room later, but who waits for that is the control plane.
fn made(instance: &str, result: Result<(), ApiError>) -> Outcome {
    api(instance, "make", result, &[404])
}

/// `waits`: statuses that pass.
fn api(what: &str, doing: &str, result: Result<(), ApiError>, waits: &[u16]) -> Outcome {
    let Err(error) = result else { return Outcome::Done };
    let reason = error.reason();
    warn!(
        what,
        doing,
        reason,
        error = &error as &dyn Error,
        "the API server did not take it"
    );
    match &error {
        ApiError::Refused(status) if !error.is_transient() && !error.is_conflict() && !waits.contains(&status.code) => {
            Outcome::Refused {
                status: status.code,
                text: status.message.clone(),
            }
        }
        _ => Outcome::Later(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_that_is_full_is_its_end_and_one_that_others_use_just_now_is_not() {
        let answer = |code: u16, reason: &str, message: &str| {
            let status = json!({"status": "Failure", "code": code, "reason": reason, "message": message});
            Err(ApiError::Refused(serde_json::from_value(status).unwrap()))
        };
        let full = "pods \"0-sr-a\" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=2";
        let refused = Outcome::Refused {
            status: 403,
            text: full.to_owned(),
        };
        assert_eq!(made("0-sr-a", answer(403, "Forbidden", full)), refused);
        let others = "Operation cannot be fulfilled on resourcequotas \"gpus\": the object has been modified";
        assert_eq!(made("0-sr-a", answer(409, "Conflict", others)), Outcome::Later(None));
        let late = "namespaces \"nvcf-backend\" not found";
        assert_eq!(made("0-sr-a", answer(404, "NotFound", late)), Outcome::Later(None));
    }

    #[test]
    fn only_the_services_own_word_ends_an_instance_that_runs() {
        let not_found = |text: &str| SisError::NotFound { text: text.to_owned() };
        for elsewhere in [
            "404 page not found",
            "",
            "Could not find any cluster registered with id c",
        ] {
            let outcome = sis("0-sr-a", "report", Err(not_found(elsewhere)));
            assert!(matches!(outcome, Outcome::Later(_)), "{elsewhere}: {outcome:?}");
        }
        let outcome = sis("0-sr-a", "report", Err(not_found("Cannot find request with id r")));
        assert!(matches!(outcome, Outcome::Refused { status: 404, .. }), "{outcome:?}");
    }
}
