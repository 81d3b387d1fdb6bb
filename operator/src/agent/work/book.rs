//! All wishes at once: which message belongs to which of them, what they hold, what is to be done. Pure.

use std::{collections::BTreeMap, time::Duration};

use berth_sis::wire::TerminationMessage;

use super::{
    cause::Cause,
    limits::Limits,
    message::Wish,
    pod::Seen,
    request::{Effect, Moment, Outcome, Request, Ticket},
};

/// A wish for which there is no room is looked at again after this.
const NO_ROOM: Duration = Duration::from_secs(3);
/// Between two tries to tell of an instance that nobody knows.
const RETRY_MS: u64 = 5_000;

/// What is to be done, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// For the wish of this name.
    Wish(String, Effect),
    /// Tell that an instance, which is not here, is not here.
    Disown {
        ticket: Ticket,
        request_id: String,
        instance: String,
    },
    /// A termination message is done with.
    Settle(Ticket),
}

/// What becomes of a creation message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Taken,
    /// It was here before.
    Known,
    /// There is no room: it is to come again after this. Others need not wait for it.
    Wait(Duration),
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    wishes: BTreeMap<String, Request>,
    endings: BTreeMap<Ticket, Ending>,
    limits: Limits,
}

/// A termination message that is not done with.
#[derive(Debug)]
struct Ending {
    request_id: String,
    instances: Vec<String>,
    /// Wishes whose kept status does not have the end yet.
    unsaved: Vec<String>,
    /// Instances that nobody here knows.
    unknown: Vec<String>,
    busy: bool,
    not_before: u64,
}

impl Book {
    /// A wish that an earlier process took on.
    pub(crate) fn keep(&mut self, request: Request) {
        self.wishes.entry(request.wish.name.clone()).or_insert(request);
    }

    /// A creation message. `refused`: why it cannot be done here at all; `fits`: how many such instances there is room for.
    pub(crate) fn arrived(
        &mut self,
        wish: Wish,
        refused: Option<&str>,
        ticket: Ticket,
        fits: impl FnOnce(&str, u32) -> u32,
        now: Moment,
    ) -> Arrival {
        if let Some(known) = self.wishes.get_mut(&wish.name) {
            known.redelivered(ticket, now.steady);
            return Arrival::Known;
        }
        if refused.is_none() && fits(&wish.gpu, wish.gpus) < wish.instances {
            return Arrival::Wait(NO_ROOM);
        }
        self.keep(Request::new(wish, refused, ticket, now));
        Arrival::Taken
    }

    /// A termination message: the instances that it names end, and no others. The ticket that it had before, if it came again.
    pub(crate) fn end(&mut self, message: &TerminationMessage, ticket: Ticket) -> Option<Ticket> {
        let is_it = |it: &Ending| it.request_id == message.request_id && it.instances == message.instance_ids;
        let stale = self.endings.iter().find(|(_, it)| is_it(it)).map(|(stale, _)| *stale);
        let before = stale.and_then(|stale| self.endings.remove(&stale));
        let mut ending = Ending {
            request_id: message.request_id.clone(),
            instances: message.instance_ids.clone(),
            unsaved: Vec::new(),
            unknown: Vec::new(),
            busy: false,
            not_before: before.as_ref().map_or(0, |it| it.not_before),
        };
        for instance in &message.instance_ids {
            match self.of(instance) {
                Some(request) => {
                    request.end(instance, Cause::User);
                    ending.unsaved.push(request.wish.name.clone());
                }
                None => ending.unknown.push(instance.clone()),
            }
        }
        self.endings.insert(ticket, ending);
        stale
    }

    /// A pod as it is now.
    pub(crate) fn saw(&mut self, seen: &Seen) {
        if let Some(request) = self.of(&seen.instance) {
            request.saw(seen);
        }
    }

    /// A pod that is not there any more.
    pub(crate) fn lost(&mut self, instance: &str) {
        if let Some(request) = self.of(instance) {
            request.lost(instance);
        }
    }

    /// Messages that came before then and were not settled have come again by now. The tickets that are of no use any more.
    pub(crate) fn came_again(&mut self, before: Duration) -> Vec<Ticket> {
        let wishes = self.wishes.values_mut();
        wishes.filter_map(|request| request.came_again(before)).collect()
    }

    /// A list of the pods begins.
    pub(crate) fn looking(&mut self) {
        self.wishes.values_mut().for_each(Request::looking);
    }

    /// Every pod that was there when [`Self::looking`] was said was seen.
    pub(crate) fn all_seen(&mut self) {
        self.wishes.values_mut().for_each(Request::all_seen);
    }

    /// Somebody deleted the `ICMSRequest`: its instances end, and are told.
    pub(crate) fn deleted(&mut self, name: &str) {
        if let Some(request) = self.wishes.get_mut(name) {
            request.end_all(&Cause::Deleted);
        }
    }

    /// How long pods may have trouble, from now on.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// For maintenance everything ends, and is told.
    pub(crate) fn drain(&mut self) {
        let wishes = self.wishes.values_mut();
        wishes.for_each(|request| request.end_all(&Cause::Maintenance));
    }

    pub(crate) fn wish(&self, name: &str) -> Option<&Request> {
        self.wishes.get(name)
    }

    /// GPUs that wishes hold, by name.
    pub(crate) fn allocation(&self) -> BTreeMap<String, u32> {
        let mut sums = BTreeMap::<String, u32>::new();
        for request in self.wishes.values() {
            let sum = sums.entry(request.wish.gpu.clone()).or_default();
            *sum = sum.saturating_add(request.gpus());
        }
        sums.retain(|_, sum| *sum > 0);
        sums
    }

    /// Everything that can be done now. Each is given out once, until [`Self::done`].
    pub(crate) fn jobs(&mut self, now: u64) -> Vec<Job> {
        let limits = self.limits;
        let wishes = self.wishes.iter_mut().filter_map(|(name, request)| {
            request.judge(now, &limits);
            Some(Job::Wish(name.clone(), request.next(now)?))
        });
        let mut jobs: Vec<_> = wishes.collect();
        for (ticket, ending) in &mut self.endings {
            let is_saved = |name: &String| self.wishes.get(name).is_none_or(Request::is_saved);
            ending.unsaved.retain(|name| !is_saved(name));
            if ending.busy || ending.not_before > now {
                continue;
            }
            let job = match ending.unknown.first() {
                Some(instance) => Job::Disown {
                    ticket: *ticket,
                    request_id: ending.request_id.clone(),
                    instance: instance.clone(),
                },
                None if ending.unsaved.is_empty() => Job::Settle(*ticket),
                None => continue,
            };
            ending.busy = true;
            jobs.push(job);
        }
        jobs
    }

    /// What came of a job.
    pub(crate) fn done(&mut self, job: Job, outcome: Outcome, now: u64) {
        let is_later = matches!(outcome, Outcome::Later(_));
        match job {
            Job::Wish(name, effect) => {
                if let Some(request) = self.wishes.get_mut(&name) {
                    request.done(effect, outcome, now);
                    if request.is_removed() {
                        self.wishes.remove(&name);
                    }
                }
            }
            Job::Disown { ticket, instance, .. } => {
                if let Some(ending) = self.endings.get_mut(&ticket) {
                    ending.busy = false;
                    if is_later {
                        ending.not_before = now + RETRY_MS;
                    } else {
                        ending.not_before = 0;
                        ending.unknown.retain(|other| *other != instance);
                    }
                }
            }
            // Not settled, it comes again, and the same instances end again.
            Job::Settle(ticket) => drop(self.endings.remove(&ticket)),
        }
    }

    fn of(&mut self, instance: &str) -> Option<&mut Request> {
        self.wishes.values_mut().find(|request| request.has(instance))
    }
}

impl Job {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Wish(_, effect) => match effect {
                Effect::Store => "store",
                Effect::Acknowledge => "acknowledge",
                Effect::Settle(_) => "settle",
                Effect::Make(_) => "make",
                Effect::Report(..) => "report",
                Effect::Delete(..) => "delete",
                Effect::Purge(_) => "purge",
                Effect::Save(_) => "save",
                Effect::Remove => "remove",
            },
            Self::Disown { .. } => "disown",
            Self::Settle(_) => "settle",
        }
    }
}

#[cfg(test)]
mod tests;
