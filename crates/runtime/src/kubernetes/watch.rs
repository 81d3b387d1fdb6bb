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

/// After the first error, and the longest: so late may it be heard that an outage is over.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(10);

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

/// How long to rest after the next error.
struct Patience(Duration);

impl Patience {
    fn after<K>(&mut self, event: &watcher::Result<watcher::Event<K>>) -> Duration {
        match event {
            // Each try begins with it.
            Ok(watcher::Event::Init) => Duration::ZERO,
            Ok(_) => {
                self.0 = FIRST_WAIT;
                Duration::ZERO
            }
            // It answers, and a list from the start will do: that is the end of the outage.
            Err(error) if is_too_old(error) => {
                self.0 = FIRST_WAIT;
                FIRST_WAIT
            }
            Err(_) => {
                let longer = (self.0 * 2).min(LAST_WAIT);
                std::mem::replace(&mut self.0, longer)
            }
        }
    }
}

/// The API server has forgotten what came after the last event: always so when it was restarted.
fn is_too_old(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
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
    let mut patience = Patience(FIRST_WAIT);
    let events = watcher(api, config).map(move |event| {
        let event = event.map_err(plain);
        let rest = patience.after(&event);
        (event, rest)
    });
    let then_rest = |(event, rest)| {
        let rest = stream::once(tokio::time::sleep(rest)).filter_map(|()| future::ready(None));
        stream::once(future::ready(event)).chain(rest)
    };
    events.flat_map(then_rest).boxed()
}

/// One object by its name, as [`patient`] tells it. `None`: it is not there.
pub fn one<K>(api: Api<K>, name: &str) -> BoxStream<'static, watcher::Result<Option<K>>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut is_there = false;
    let mut told = move |event| match event {
        Ok(watcher::Event::Init) => {
            is_there = false;
            None
        }
        Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
            is_there = true;
            Some(Ok(Some(object)))
        }
        Ok(watcher::Event::InitDone) => (!is_there).then_some(Ok(None)),
        Ok(watcher::Event::Delete(_)) => Some(Ok(None)),
        Err(error) => Some(Err(error)),
    };
    patient(api, config)
        .filter_map(move |event| future::ready(told(event)))
        .boxed()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_outage_is_heard_within_ten_seconds_and_the_next_one_is_another() {
        let mut patience = Patience(FIRST_WAIT);
        for _outage in 0..2 {
            let mut rests = Vec::new();
            for _try in 0..20 {
                rests.push(patience.after::<()>(&Ok(watcher::Event::Init)));
                rests.push(patience.after::<()>(&Err(watcher::Error::NoResourceVersion)));
            }
            assert!(rests.iter().all(|rest| *rest <= Duration::from_secs(10)), "{rests:?}");
            let status =
                serde_json::json!({"status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
            let too_old = watcher::Error::WatchError(serde_json::from_value(status).unwrap());
            assert_eq!(patience.after::<()>(&Err(too_old)), FIRST_WAIT, "it answers");
            let first_minute = rests.iter().scan(Duration::ZERO, |at, rest| {
                *at += *rest;
                Some(*at)
            });
            let tries = first_minute.filter(|at| *at < Duration::from_mins(1)).count() / 2;
            assert!((5..12).contains(&tries), "{tries} tries in a minute");
            assert_eq!(patience.after::<()>(&Ok(watcher::Event::InitDone)), Duration::ZERO);
        }
    }
}
