//! A watch for ever: errors are waited out, and what is gone after a break is told as gone. Knows no kind of object.

use std::{collections::HashSet, fmt::Debug, hash::Hash, time::Duration};

use futures_util::{
    StreamExt as _, future,
    stream::{self, BoxStream},
};
use kube::{Api, Resource, runtime::watcher};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::unquoted;

/// After the first error, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(30);

/// Who was told of since a watch began anew.
#[derive(Debug)]
pub struct Resync<K> {
    /// `Some` between the beginning and the end of a list.
    listed: Option<HashSet<K>>,
    complete: bool,
}

impl<K: Eq + Hash + Clone> Default for Resync<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Eq + Hash + Clone> Resync<K> {
    pub const fn new() -> Self {
        Self {
            listed: None,
            complete: false,
        }
    }

    /// Everything was told at least once.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The object that is there now, and those that are not there any more. `known`: all that were, at the end of a list.
    pub fn step<T>(
        &mut self,
        event: watcher::Event<T>,
        key: impl Fn(&T) -> Option<K>,
        known: impl FnOnce() -> HashSet<K>,
    ) -> (Option<(K, T)>, Vec<K>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitDone => {
                self.complete = true;
                let listed = self.listed.take().unwrap_or_default();
                return (None, known().difference(&listed).cloned().collect());
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                let key = key(&object);
                if let (Some(listed), Some(key)) = (&mut self.listed, &key) {
                    listed.insert(key.clone());
                }
                return (key.map(|key| (key, object)), Vec::new());
            }
            watcher::Event::Delete(object) => return (None, key(&object).into_iter().collect()),
        }
        (None, Vec::new())
    }
}

/// The events and errors of a watch. After an error it rests, longer with each, until something is told again.
///
/// The watcher's own backoff begins anew with each try, as each begins with an event: a kind that is not there would be asked
/// for each second.
pub fn patient<K>(api: Api<K>, config: watcher::Config) -> BoxStream<'static, watcher::Result<watcher::Event<K>>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let mut wait = FIRST_WAIT;
    let events = watcher(api, config).map(move |event| {
        let event = event.map_err(plain);
        let rest = match &event {
            Ok(watcher::Event::Init) => Duration::ZERO,
            Ok(_) => {
                wait = FIRST_WAIT;
                Duration::ZERO
            }
            Err(_) => {
                let longer = (wait * 2).min(LAST_WAIT);
                std::mem::replace(&mut wait, longer)
            }
        };
        (event, rest)
    });
    let then_rest = |(event, rest)| {
        let rest = stream::once(tokio::time::sleep(rest)).filter_map(|()| future::ready(None));
        stream::once(future::ready(event)).chain(rest)
    };
    events.flat_map(then_rest).boxed()
}

pub(super) fn plain(error: watcher::Error) -> watcher::Error {
    match error {
        watcher::Error::InitialListFailed(error) => watcher::Error::InitialListFailed(unquoted(error)),
        watcher::Error::WatchStartFailed(error) => watcher::Error::WatchStartFailed(unquoted(error)),
        watcher::Error::WatchFailed(error) => watcher::Error::WatchFailed(unquoted(error)),
        other => other,
    }
}

/// Errors are waited out; each kind of trouble is told once.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> BoxStream<'static, watcher::Event<K>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let mut told = false;
    let what = api.resource_url().to_owned();
    patient(api, config)
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    told = false;
                    Some(event)
                }
                Err(error) => {
                    if !told {
                        warn!(
                            what,
                            error = &error as &dyn std::error::Error,
                            "a watch broke: trying on"
                        );
                    }
                    told = true;
                    None
                }
            };
            future::ready(event)
        })
        .boxed()
}
