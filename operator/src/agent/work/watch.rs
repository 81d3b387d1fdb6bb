//! A watch for ever: errors are waited out, and what went away during a break is told as gone. Knows no kind of object.

use std::{collections::HashSet, fmt::Debug};

use berth_runtime::kubernetes::watch::patient;
use futures_util::{StreamExt as _, future, stream, stream::BoxStream};
use kube::{Api, Resource, ResourceExt as _, runtime::watcher};
use serde::de::DeserializeOwned;
use tracing::warn;

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change<K> {
    Here(Box<K>),
    /// By name.
    Gone(String),
    /// A list begins: what is made from here on may be missing in it.
    Listing,
    /// All that are there were told.
    Listed,
}

/// Which names were told.
#[derive(Debug, Default)]
struct Known {
    told: HashSet<String>,
    /// `Some` between the beginning and the end of a list.
    listed: Option<HashSet<String>>,
}

impl Known {
    fn step<K: Resource>(&mut self, event: watcher::Event<K>) -> Vec<Change<K>> {
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashSet::new());
                vec![Change::Listing]
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                let name = object.name_any();
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone());
                }
                self.told.insert(name);
                vec![Change::Here(Box::new(object))]
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<String> = self.told.difference(&listed).cloned().collect();
                self.told = listed;
                gone.into_iter().map(Change::Gone).chain([Change::Listed]).collect()
            }
            watcher::Event::Delete(object) => {
                self.told.remove(&object.name_any());
                vec![Change::Gone(object.name_any())]
            }
        }
    }
}

/// Each kind of trouble is told once.
pub(super) fn follow<K>(api: Api<K>, config: watcher::Config) -> BoxStream<'static, Change<K>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let what = api.resource_url().to_owned();
    let (mut told, mut known) = (false, Known::default());
    let events = patient(api, config).filter_map(move |event| {
        if let Err(error) = &event
            && !told
        {
            let error = error as &dyn std::error::Error;
            warn!(what, error, "a watch broke: trying on");
        }
        told = event.is_err();
        future::ready(event.ok())
    });
    events.flat_map(move |event| stream::iter(known.step(event))).boxed()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_went_away_during_a_break_is_told() {
        let pod = |name: &str| -> Pod { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
        let mut known = Known::default();
        let mut step = |event| known.step::<Pod>(event);
        assert_eq!(step(watcher::Event::Init), [Change::Listing]);
        step(watcher::Event::InitApply(pod("a")));
        assert_eq!(step(watcher::Event::InitDone), [Change::Listed]);
        assert_eq!(
            step(watcher::Event::Apply(pod("b"))),
            [Change::Here(Box::new(pod("b")))]
        );
        step(watcher::Event::Init);
        step(watcher::Event::InitApply(pod("b")));
        assert_eq!(
            step(watcher::Event::InitDone),
            [Change::Gone("a".to_owned()), Change::Listed]
        );
        assert_eq!(step(watcher::Event::Delete(pod("b"))), [Change::Gone("b".to_owned())]);
    }
}
