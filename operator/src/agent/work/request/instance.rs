//! One instance: how its pod is, whether it has to end, what the control plane was told. Pure.

use std::time::Duration;

use super::{
    super::{
        cause::{Alive, Cause, Told},
        limits::Limits,
        pod::{PodState, Seen},
    },
    millis,
};

/// The control plane wants to hear as often, even if nothing changed.
const TELL_AGAIN: Duration = Duration::from_mins(5);
/// A node that has not ended a pod so long after it had to does not answer.
const SILENCE: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its pod is to be made.
    Wanted,
    /// Its pod was made.
    Made,
    /// There is no pod and will be none.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(super) phase: Phase,
    /// Its pod may have been made: there was no answer.
    tried: bool,
    seen: Option<Seen>,
    /// By a list that began after its pod was made.
    sought: bool,
    pub(super) end: Option<Cause>,
    deleting: bool,
    /// And when, unix milliseconds.
    pub(super) told: Option<(Told, u64)>,
}

impl Instance {
    pub(super) const fn new(end: Option<Cause>) -> Self {
        Self {
            phase: Phase::Wanted,
            tried: false,
            seen: None,
            sought: false,
            end,
            deleting: false,
            told: None,
        }
    }

    /// As it was kept.
    pub(super) const fn kept(phase: Phase, end: Option<Cause>, told: Option<(Told, u64)>) -> Self {
        Self {
            phase,
            tried: false,
            seen: None,
            sought: false,
            end,
            deleting: false,
            told,
        }
    }

    pub(super) fn saw(&mut self, seen: &Seen) {
        let is_back = self.phase == Phase::Gone;
        // The echo of a pod that is gone comes before its end. One that was tried may come after all, and must go.
        if is_back && !self.tried {
            return;
        }
        self.phase = Phase::Made;
        if is_back {
            self.deleting = false;
        } else if matches!(self.end, Some(Cause::Trouble(..))) && !self.deleting && seen.gone_by.is_none() {
            // It may be well by now: it was seen late, and is judged anew.
            self.end = None;
        }
        self.seen = Some(seen.clone());
    }

    pub(super) fn lost(&mut self) {
        if self.phase == Phase::Made {
            self.phase = Phase::Gone;
            self.end.get_or_insert(Cause::NotFound);
        }
    }

    pub(super) const fn look(&mut self) {
        self.sought = matches!(self.phase, Phase::Made) && self.seen.is_none();
    }

    pub(super) fn looked(&mut self) {
        if std::mem::take(&mut self.sought) && self.seen.is_none() {
            self.lost();
        }
    }

    /// The first reason counts.
    pub(super) fn end(&mut self, cause: Cause) {
        self.end.get_or_insert(cause);
    }

    pub(super) const fn tried(&mut self) {
        self.tried = true;
    }

    pub(super) const fn made(&mut self) {
        if matches!(self.phase, Phase::Wanted) {
            self.phase = Phase::Made;
        }
    }

    pub(super) fn refused(&mut self, text: String) {
        self.phase = Phase::Gone;
        self.end.get_or_insert(Cause::Refused(text));
    }

    pub(super) const fn deleting(&mut self) {
        self.deleting = true;
    }

    /// Nothing was made, and nobody waits for a word of it.
    pub(super) fn drop_silently(&mut self) {
        self.end = Some(Cause::Unwanted);
        self.told = Some((Told::Terminated(Cause::Unwanted), 0));
    }

    pub(super) fn told(&mut self, told: Told, now: u64) {
        self.told = Some((told, now));
    }

    /// Its pod will not go by itself.
    pub(super) fn is_overdue(&self, now: u64) -> bool {
        let gone_by = self.seen.as_ref().and_then(|seen| seen.gone_by);
        self.phase == Phase::Made && gone_by.is_some_and(|by| now.saturating_sub(by) >= millis(SILENCE))
    }

    /// What time makes of its pod's trouble.
    pub(super) fn judge(&mut self, now: u64, limits: &Limits) {
        if self.is_overdue(now) {
            let text = "its pod was deleted, and its node does not answer";
            self.end.get_or_insert_with(|| Cause::Failed(text.to_owned()));
        }
        let Some(seen) = &self.seen else { return };
        let (alive, findings) = match &seen.state {
            PodState::Waiting(findings) => (Alive::Starting, findings.as_slice()),
            PodState::Running => (Alive::Running, [].as_slice()),
            PodState::Over(_) => return,
        };
        let is_too_long = |limit: Duration, since: u64| now.saturating_sub(since) >= millis(limit);
        let worst = findings.iter().find(|it| {
            limits
                .after(it.trouble)
                .is_some_and(|limit| is_too_long(limit, it.since))
        });
        if let Some(finding) = worst {
            self.end
                .get_or_insert_with(|| Cause::Trouble(finding.trouble, finding.text.clone()));
        }
        let overran = limits
            .run()
            .zip(seen.started)
            .filter(|(run, since)| is_too_long(*run, *since));
        if let Some((run, _)) = overran.filter(|_| seen.gone_by.is_none()) {
            let text =
                format!("the task did not come to its end within its longest run time and a while, {run:?} in all");
            self.end.get_or_insert(Cause::Overran(alive, text));
        }
    }

    /// A pod that is over ends it, and one that is not wanted any more is not made. Where it may have been made, it is deleted.
    pub(super) fn resolve(&mut self) {
        if let Some(PodState::Over(cause)) = self.seen.as_ref().map(|seen| &seen.state) {
            self.end.get_or_insert_with(|| cause.clone());
        }
        if self.phase == Phase::Wanted && self.end.is_some() {
            self.phase = if self.tried { Phase::Made } else { Phase::Gone };
        }
    }

    pub(super) const fn is_wanted(&self) -> bool {
        matches!(self.phase, Phase::Wanted) && self.end.is_none()
    }

    pub(super) const fn must_go(&self) -> bool {
        matches!(self.phase, Phase::Made) && self.end.is_some() && !self.deleting
    }

    /// Its pod had its time to end itself.
    pub(super) const fn must_go_at_once(&self) -> bool {
        self.must_go() && matches!(self.end, Some(Cause::Overran(..)))
    }

    /// A pod in trouble may have come out of it while nothing was heard of it.
    pub(super) fn only_of(&self) -> Option<&String> {
        let is_trouble = matches!(self.end, Some(Cause::Trouble(..)));
        self.seen.as_ref().filter(|_| is_trouble).map(|seen| &seen.version)
    }

    /// It is gone, and the control plane knows.
    pub(super) const fn is_over(&self) -> bool {
        matches!((self.phase, &self.told), (Phase::Gone, Some((Told::Terminated(_), _))))
    }

    /// Its state for the control plane; `None`: there is nothing to say.
    pub(super) fn state(&self) -> Option<Told> {
        match (self.phase, &self.end, &self.seen) {
            (Phase::Wanted, ..) | (Phase::Made, Some(_), _) => None,
            (Phase::Gone, end, _) => Some(Told::Terminated(end.clone().unwrap_or(Cause::NotFound))),
            (Phase::Made, None, Some(seen)) if seen.state == PodState::Running => Some(Told::Running(seen.ips.clone())),
            (Phase::Made, None, _) => Some(Told::Starting),
        }
    }

    /// A change at once, an end once, everything else again and again.
    pub(super) fn to_tell(&self, now: u64) -> Option<Told> {
        let state = self.state()?;
        match &self.told {
            Some((Told::Terminated(_), _)) => None,
            Some((told, at)) if *told == state && now.saturating_sub(*at) < millis(TELL_AGAIN) => None,
            _ => Some(state),
        }
    }
}
