//! A watch for ever, as changes: also of what went away during a break. Knows no kind of object.

use std::{collections::HashSet, fmt::Debug};

use berth_runtime::kubernetes::watch::{Resync, watch};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use kube::{Api, Resource, ResourceExt as _, runtime::watcher};
use serde::de::DeserializeOwned;

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

#[derive(Debug, Default)]
struct Known {
    told: HashSet<String>,
    resync: Resync<String>,
}

impl Known {
    fn step<K: Resource>(&mut self, event: watcher::Event<K>) -> Vec<Change<K>> {
        let listing = matches!(event, watcher::Event::Init).then_some(Change::Listing);
        let listed = matches!(event, watcher::Event::InitDone).then_some(Change::Listed);
        let name = |object: &K| Some(object.name_any());
        let (here, gone) = self.resync.step(event, name, || self.told.clone());
        let here = here.map(|(name, object)| {
            self.told.insert(name);
            Change::Here(Box::new(object))
        });
        for name in &gone {
            self.told.remove(name);
        }
        let gone = gone.into_iter().map(Change::Gone);
        listing.into_iter().chain(here).chain(gone).chain(listed).collect()
    }
}

pub(super) fn follow<K>(api: Api<K>, config: watcher::Config) -> BoxStream<'static, Change<K>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let mut known = Known::default();
    let changes = watch(api, config).flat_map(move |event| stream::iter(known.step(event)));
    changes.boxed()
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
