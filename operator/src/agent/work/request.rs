//! One wish of the control plane, from its message to its last report: what is known, and what is to be done next. Pure.
//!
//! ```text
//! events (message, pods, outcomes) ──► Request ──next──► Effect ──(the rim does it)──► Outcome ──done──► Request
//! ```
//! One effect at a time, each of them safe to repeat: a crash between an effect and the knowledge of it costs a repetition
//! and nothing else. What must outlive this process is in the `ICMSRequest`'s status ([`Request::status`]).

mod instance;
mod status;

use std::{collections::BTreeMap, time::Duration};

use berth_kube_api::nvcf::icms_request::ICMSRequestStatus;

pub(crate) use self::instance::Instance;
use self::instance::Phase;
use super::{
    cause::{Cause, Told},
    limits::Limits,
    message::Wish,
    pod::Seen,
};

/// Between two tries of the same thing, doubled up to [`LAST_WAIT`]: so late may it be done after an outage.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(10);
/// What the control plane refused is not told again before.
const REFUSED_WAIT: Duration = Duration::from_mins(1);
/// The control plane may publish a request before it knows it itself.
const UNKNOWN_FOR: Duration = Duration::from_mins(5);

/// A message that its stream waits to hear about.
pub(crate) type Ticket = u64;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Make the `ICMSRequest`.
    Store,
    /// Tell the control plane that the wish is taken on.
    Acknowledge,
    /// Tell the stream that the message is done with.
    Settle(Ticket),
    /// Make an instance's pod and what it needs.
    Make(String),
    Report(String, Told),
    /// Delete an instance's pod, if it is still of this version.
    Delete(String, Option<String>),
    /// Delete it without its node's help.
    Purge(String),
    /// Write the status of the `ICMSRequest`.
    Save(Box<ICMSRequestStatus>),
    /// Delete the `ICMSRequest`.
    Remove,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The same may succeed later.
    Later(Option<Duration>),
    /// It will not. With the status of the answer.
    Refused {
        status: u16,
        text: String,
    },
}

/// Of the `ICMSRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Stored,
    Removed,
}

/// A time. People may set the clock of the calendar, which pods and objects go by; the steady one goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) unix_ms: u64,
    pub(crate) steady: Duration,
}

/// The message, as far as its stream is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    /// Since it came, by the steady clock. Without a ticket an earlier process had it: it comes again, unless that one settled it.
    Open {
        ticket: Option<Ticket>,
        since: Duration,
    },
    Settled,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wish: Wish,
    stage: Stage,
    /// When the control plane was told that the wish is taken on, unix milliseconds.
    acknowledged: Option<u64>,
    /// The control plane does not want it any more.
    unwanted: bool,
    letter: Letter,
    instances: BTreeMap<String, Instance>,
    saved: ICMSRequestStatus,
    busy: bool,
    since: u64,
    waits: BTreeMap<String, Wait>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    until: u64,
    last: Duration,
}

impl Request {
    /// `refused`: why it cannot be made here at all.
    pub(crate) fn new(wish: Wish, refused: Option<&str>, ticket: Ticket, now: Moment) -> Self {
        let instance = || {
            let end = refused.map(|text| Cause::Refused(text.to_owned()));
            Instance::new(end)
        };
        let names = (0..wish.instances).map(|index| wish.instance(index));
        Self {
            instances: names.map(|name| (name, instance())).collect(),
            wish,
            stage: Stage::New,
            acknowledged: None,
            unwanted: false,
            letter: Letter::Open {
                ticket: Some(ticket),
                since: now.steady,
            },
            saved: ICMSRequestStatus::default(),
            busy: false,
            since: now.unix_ms,
            waits: BTreeMap::new(),
        }
    }

    /// The message came again: its stream has forgotten the ticket from before.
    pub(crate) const fn redelivered(&mut self, ticket: Ticket, now: Duration) {
        self.letter = Letter::Open {
            ticket: Some(ticket),
            since: now,
        };
    }

    /// Of the message that is not settled yet.
    pub(crate) const fn ticket(&self) -> Option<Ticket> {
        match self.letter {
            Letter::Open { ticket, .. } => ticket,
            Letter::Settled => None,
        }
    }

    /// What came before then and was not settled has come again by now: where it did not, the stream has it no more. The
    /// ticket that is of no use any more.
    pub(crate) fn came_again(&mut self, before: Duration) -> Option<Ticket> {
        match self.letter {
            Letter::Open { ticket, since } if since <= before => {
                self.letter = Letter::Settled;
                ticket
            }
            _ => None,
        }
    }

    /// Whether an instance is one of this wish's, however it is.
    pub(crate) fn has(&self, instance: &str) -> bool {
        self.instances.contains_key(instance)
    }

    /// Its pod as it is now.
    pub(crate) fn saw(&mut self, seen: &Seen) {
        if let Some(instance) = self.instances.get_mut(&seen.instance) {
            instance.saw(seen);
        }
    }

    /// Its pod is not there any more.
    pub(crate) fn lost(&mut self, instance: &str) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.lost();
        }
    }

    /// The pods are looked for: after a start, and after a watch broke.
    pub(crate) fn looking(&mut self) {
        self.instances.values_mut().for_each(Instance::look);
    }

    /// What was made before the look and was not seen since is not there any more.
    pub(crate) fn all_seen(&mut self) {
        self.instances.values_mut().for_each(Instance::looked);
    }

    /// One instance, and no other, has to end.
    pub(crate) fn end(&mut self, instance: &str, cause: Cause) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.end(cause);
        }
    }

    pub(crate) fn end_all(&mut self, cause: &Cause) {
        for instance in self.instances.values_mut() {
            instance.end(cause.clone());
        }
    }

    /// Everything that is known is also in the `ICMSRequest`.
    pub(crate) fn is_saved(&self) -> bool {
        self.stage == Stage::Stored && self.saved == self.status()
    }

    /// Nothing is left of it.
    pub(crate) const fn is_removed(&self) -> bool {
        matches!(self.stage, Stage::Removed)
    }

    /// GPUs that its instances have or will have.
    pub(crate) fn gpus(&self) -> u32 {
        let held = self
            .instances
            .values()
            .filter(|instance| instance.phase != Phase::Gone)
            .count();
        self.wish.gpus.saturating_mul(u32::try_from(held).unwrap_or(u32::MAX))
    }

    /// Instances whose pods have had trouble for too long end.
    pub(crate) fn judge(&mut self, now: u64, limits: &Limits) {
        let limits = limits.for_wish(&self.wish);
        for instance in self.instances.values_mut() {
            instance.judge(now, &limits);
        }
    }

    /// What to do now; `None`: nothing, or something is being done.
    pub(crate) fn next(&mut self, now: u64) -> Option<Effect> {
        if self.busy || self.is_removed() {
            return None;
        }
        self.instances.values_mut().for_each(Instance::resolve);
        let waits = &self.waits;
        let may = |effect: &Effect| waits.get(&key(effect)).is_none_or(|wait| wait.until <= now);
        let effect = self.wanted(now).into_iter().find(may)?;
        self.busy = true;
        Some(effect)
    }

    /// Most urgent first.
    fn wanted(&self, now: u64) -> Vec<Effect> {
        if self.stage == Stage::New {
            return vec![Effect::Store];
        }
        let mut wanted = Vec::new();
        let is_answered = self.acknowledged.is_some() || self.unwanted;
        if !is_answered {
            wanted.push(Effect::Acknowledge);
        }
        wanted.extend(self.ticket().filter(|_| is_answered).map(Effect::Settle));
        for (name, instance) in &self.instances {
            if instance.is_overdue(now) || instance.must_go_at_once() {
                wanted.push(Effect::Purge(name.clone()));
            } else if instance.must_go() {
                wanted.push(Effect::Delete(name.clone(), instance.only_of().cloned()));
            }
            if is_answered && instance.is_wanted() {
                wanted.push(Effect::Make(name.clone()));
            }
            if is_answered && let Some(told) = instance.to_tell(now) {
                wanted.push(Effect::Report(name.clone(), told));
            }
        }
        let status = self.status();
        if status != self.saved {
            wanted.push(Effect::Save(Box::new(status)));
        } else if self.letter == Letter::Settled && self.instances.values().all(Instance::is_over) {
            // Not before: a message that comes again must find that it is over.
            wanted.push(Effect::Remove);
        }
        wanted
    }

    /// What came of an effect that [`Self::next`] gave out.
    pub(crate) fn done(&mut self, effect: Effect, outcome: Outcome, now: u64) {
        self.busy = false;
        let key = key(&effect);
        let outcome = match outcome {
            Outcome::Later(after) => {
                if let Effect::Make(name) = &effect
                    && let Some(instance) = self.instances.get_mut(name)
                {
                    instance.tried();
                }
                return self.wait(key, after, now);
            }
            Outcome::Refused { status, text } => Err((status, text)),
            Outcome::Done => Ok(()),
        };
        match (effect, outcome) {
            (Effect::Store, Ok(())) => self.stage = Stage::Stored,
            (Effect::Acknowledge, Ok(())) => self.acknowledged = Some(now),
            (Effect::Acknowledge, Err((404, _))) if now < self.since + millis(UNKNOWN_FOR) => {
                return self.wait(key, None, now);
            }
            (Effect::Acknowledge, Err(_)) => {
                self.unwanted = true;
                for instance in self.instances.values_mut() {
                    instance.drop_silently();
                }
            }
            (Effect::Settle(ticket), _) => {
                if self.ticket() == Some(ticket) {
                    self.letter = Letter::Settled;
                }
            }
            (Effect::Make(name), outcome) => {
                if let Some(instance) = self.instances.get_mut(&name) {
                    match outcome {
                        Ok(()) => instance.made(),
                        Err((_, text)) => instance.refused(text),
                    }
                }
            }
            (Effect::Report(name, told), outcome) => {
                let Some(instance) = self.instances.get_mut(&name) else {
                    return;
                };
                match (outcome, &told) {
                    // Nobody there wants to hear of its end.
                    (Ok(()), _) | (Err(_), Told::Terminated(_)) => instance.told(told, now),
                    (Err((404 | 412, _)), _) => instance.end(Cause::Unwanted),
                    (Err(_), _) => return self.wait(key, Some(REFUSED_WAIT), now),
                }
            }
            (Effect::Delete(name, _), outcome @ (Ok(()) | Err((404, _)))) => {
                if let Some(instance) = self.instances.get_mut(&name) {
                    match outcome {
                        Ok(()) => instance.deleting(),
                        // Nobody will tell of its end.
                        Err(_) => instance.lost(),
                    }
                }
            }
            (Effect::Purge(name), Err((404, _))) => {
                if let Some(instance) = self.instances.get_mut(&name) {
                    instance.lost();
                }
            }
            (Effect::Save(status), Ok(())) => self.saved = *status,
            (Effect::Remove, Ok(())) => self.stage = Stage::Removed,
            // Its end is told by the watch, or it is tried again.
            (Effect::Purge(_), _) | (Effect::Store | Effect::Delete(..) | Effect::Save(_) | Effect::Remove, Err(_)) => {
                return self.wait(key, None, now);
            }
        }
        self.waits.remove(&key);
    }

    fn wait(&mut self, key: String, after: Option<Duration>, now: u64) {
        let last = self
            .waits
            .get(&key)
            .map_or(FIRST_WAIT, |wait| (wait.last * 2).min(LAST_WAIT));
        let until = now + millis(last.max(after.unwrap_or_default()));
        self.waits.insert(key, Wait { until, last });
    }
}

/// What is tried again: a report waits for itself, whatever it says by then.
fn key(effect: &Effect) -> String {
    match effect {
        Effect::Store => "store".to_owned(),
        Effect::Acknowledge => "acknowledge".to_owned(),
        Effect::Settle(ticket) => format!("settle {ticket}"),
        Effect::Make(instance) => format!("make {instance}"),
        Effect::Report(instance, _) => format!("report {instance}"),
        Effect::Delete(instance, _) => format!("delete {instance}"),
        Effect::Purge(instance) => format!("purge {instance}"),
        Effect::Save(_) => "save".to_owned(),
        Effect::Remove => "remove".to_owned(),
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
