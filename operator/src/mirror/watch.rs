//! What the mirror sees of the cluster, kept up to date: namespaces, secrets of the listed names, and copies.
//!
//! Secrets of other names are never read: the listed names by field selector, the copies as metadata alone.

use std::{fmt::Debug, hash::Hash};

use berth_runtime::kubernetes::watch::patient;
use futures_util::{FutureExt as _, StreamExt as _, future, stream, stream::BoxStream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{
    MANAGER,
    plan::{Seen, Wanted},
};
use crate::names::{ADDITIONAL_PULL_SECRET, MANAGED_BY};

/// All watches. They go on only while [`Watches::changed`] is waited for.
pub(super) struct Watches {
    namespaces: Store<PartialObjectMeta<Namespace>>,
    secrets: Vec<Store<Secret>>,
    copies: Store<PartialObjectMeta<Secret>>,
    changes: BoxStream<'static, ()>,
}

impl Watches {
    pub(super) fn open(client: &Client, wanted: &Wanted) -> Self {
        let any = watcher::Config::default;
        let labels = format!("{MANAGED_BY}={MANAGER},{ADDITIONAL_PULL_SECRET}=true");
        let (namespaces, of_namespaces) = follow(Api::all(client.clone()), any());
        let (copies, of_copies) = follow(Api::all(client.clone()), any().labels(&labels));
        let by_name = wanted.names.iter().map(|name| {
            let named = any().fields(&format!("metadata.name={name}"));
            follow(Api::all(client.clone()), named)
        });
        let (secrets, of_secrets): (Vec<_>, Vec<_>) = by_name.unzip();
        let changes = [of_namespaces, of_copies].into_iter().chain(of_secrets);
        Self {
            namespaces,
            secrets,
            copies,
            changes: stream::select_all(changes).boxed(),
        }
    }

    /// Something changed since the last call, and everything was told at least once.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.changes.next().await.is_none() {
                // A watch goes on for ever.
                future::pending::<()>().await;
            }
            // What comes together is looked at together.
            while let Some(Some(())) = self.changes.next().now_or_never() {}
            if self.is_complete() {
                return;
            }
        }
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            namespaces: self.namespaces.state(),
            secrets: self.secrets.iter().flat_map(Store::state).collect(),
            copies: self.copies.state(),
        }
    }

    fn is_complete(&self) -> bool {
        is_told(&self.namespaces) && is_told(&self.copies) && self.secrets.iter().all(is_told)
    }
}

fn is_told<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.wait_until_ready().now_or_never().is_some_and(|told| told.is_ok())
}

/// Errors are waited out; each kind of trouble is told once.
fn follow<K>(api: Api<K>, config: watcher::Config) -> (Store<K>, BoxStream<'static, ()>)
where
    K: Resource<DynamicType: Default + Eq + Hash + Clone> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    let (store, writer) = reflector::store();
    let what = api.resource_url().to_owned();
    let selector = config.field_selector.clone();
    let mut told = false;
    let changes = patient(api, config)
        .modify(|object| {
            // Not needed, and an annotation may hold the data once more.
            object.managed_fields_mut().clear();
            object.annotations_mut().clear();
        })
        .reflect(writer)
        .filter_map(move |event| {
            future::ready(match event {
                Ok(_) => {
                    told = false;
                    Some(())
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        let error = &error as &dyn std::error::Error;
                        warn!(what, selector, error, "a watch broke: trying on");
                    }
                    None
                }
            })
        });
    (store, changes.boxed())
}
