//! Runs a ledger as the daemon does (events, a journal with group commit, crashes) and checks every promise after every step.

use std::collections::BTreeMap;

use berth_ledger::{
    Claim, ClaimState, Effect, Event, Holder, Ledger, LedgerConfig, Record, Reply, RequestRefused, Snapshot,
};

use super::{
    checks::Turn,
    log::Step,
    model::{Model, tells},
};

pub(crate) struct Shell {
    config: LedgerConfig,
    ledger: Ledger,
    journal: Vec<Record>,
    /// How much of the journal is on disk for sure.
    durable: usize,
    model: Model,
    /// `None` for a process that just started: to it any time may be a step back.
    last_now: Option<u64>,
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Shell {
    pub(crate) fn new(config: LedgerConfig) -> Self {
        Self {
            config,
            ledger: new_ledger(config),
            journal: Vec::new(),
            durable: 0,
            model: Model::default(),
            last_now: None,
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn book(&self) -> Snapshot {
        self.ledger.snapshot()
    }

    /// When a tick is wanted.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.ledger.next_deadline()
    }

    /// How many records are not on disk for sure.
    pub(crate) fn volatile(&self) -> usize {
        self.journal.len() - self.durable
    }

    pub(crate) fn run(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Start(_) => Err("a log starts once".to_owned()),
            Step::Event { now, event } => self.apply(*now, event),
            Step::Flush => {
                self.flush();
                Ok(())
            }
            Step::Crash { lost } => self.crash(*lost),
            Step::Compact => self.compact(),
        }
    }

    fn flush(&mut self) {
        self.durable = self.journal.len();
        self.model.told_generation = self.model.told_generation.max(self.book().generation());
    }

    fn apply(&mut self, now: u64, event: &Event) -> Result<(), String> {
        let before = self.book();
        let set_back = self.last_now.is_none_or(|last| now < last);
        let due = self.ledger.next_deadline().is_some_and(|due| due <= now) || set_back;
        let explained = match event {
            Event::Reserve { shape, .. } | Event::Acquire { shape, .. } if !due => Some(self.ledger.explain(shape)),
            _ => None,
        };
        if set_back {
            self.model
                .last_told
                .values_mut()
                .chain(&mut self.model.last_list)
                .for_each(|at| *at = now.min(*at));
        }
        if set_back && let Some((since, at)) = &mut self.model.heard {
            (*since, *at) = (now.min(*since), now.min(*at));
        }
        self.last_now = Some(now);
        self.model.hear(event, now, self.config.kubelet_grace_ms);
        self.model.observe(event);

        let mut effects = Vec::new();
        let reply = self.ledger.apply(now, event.clone(), &mut effects);
        self.ledger
            .check_invariants()
            .map_err(|violation| violation.to_string())?;
        for effect in &effects {
            if let Effect::Persist(record) = effect {
                self.model.write(record);
                self.journal.push(record.clone());
            }
            self.model.tell(effect)?;
        }
        let after = self.book();
        let turn = Turn {
            config: &self.config,
            now,
            event,
            before: &before,
            after: &after,
            reply: &reply,
            effects: &effects,
            explained,
            plan: &|shape| self.ledger.explain(shape).plan,
            was_due: due,
        };
        turn.check(&self.model)?;
        if matches!(event, Event::Tick) && self.next_deadline().is_some_and(|due| due <= now) {
            return Err("a tick left something due".to_owned());
        }
        self.remember_told(now, event, &after);
        self.count(event, &reply, &effects, (&before, &after));
        Ok(())
    }

    fn remember_told(&mut self, now: u64, event: &Event, book: &Snapshot) {
        let Event::Kubelet(list) = event else { return };
        self.model.last_list = Some(now);
        for claim in book
            .claims
            .iter()
            .filter(|claim| matches!(claim.state, ClaimState::Allocated { .. } | ClaimState::Foreign { .. }))
        {
            if list.iter().any(|told| tells(told, claim)) {
                self.model.last_told.insert(claim.holder.clone(), now);
            }
        }
    }

    /// The process dies and another one takes the journal over. What was answered is on disk, so it is in the new book.
    fn crash(&mut self, lost: usize) -> Result<(), String> {
        let kept = self.journal.len() - lost.min(self.volatile());
        self.journal.truncate(kept);
        self.durable = kept;
        self.model.crash(&self.journal);
        self.ledger = replayed(self.config, &self.journal)?;
        self.last_now = None;
        self.compare_with_records()?;
        if self.book().generation() < self.model.told_generation {
            return Err("a generation would be told twice".to_owned());
        }
        *self.counts.entry("step Crash".to_owned()).or_default() += 1;
        *self.counts.entry("records lost".to_owned()).or_default() += lost as u64;
        Ok(())
    }

    fn compact(&mut self) -> Result<(), String> {
        self.flush();
        self.journal = self.ledger.compact();
        self.durable = self.journal.len();
        let copy = replayed(self.config, &self.journal)?;
        if copy.compact() != self.journal {
            return Err(format!("{:?} was compacted to {:?}", self.journal, copy.compact()));
        }
        *self.counts.entry("step Compact".to_owned()).or_default() += 1;
        self.compare_with_records()
    }

    fn compare_with_records(&self) -> Result<(), String> {
        let book = self.book();
        let persisted = book
            .claims
            .iter()
            .filter(|claim| !matches!(claim.holder, Holder::Foreign(_)));
        let same = persisted.map(|claim| &**claim).eq(self.model.claims.values())
            && book.cordons.keys().eq(&self.model.cordons);
        if same {
            Ok(())
        } else {
            Err(format!(
                "{:?} was written, {:?} replayed",
                self.model.claims, book.claims
            ))
        }
    }

    fn count(
        &mut self,
        event: &Event,
        reply: &Result<Reply, RequestRefused>,
        effects: &[Effect],
        (before, after): (&Snapshot, &Snapshot),
    ) {
        let kind = match event {
            Event::Devices(_) => "Devices",
            Event::Kubelet(_) => "Kubelet",
            Event::NoKubelet => "NoKubelet",
            Event::Processes(_) => "Processes",
            Event::Reserve { .. } => "Reserve",
            Event::Acquire { .. } => "Acquire",
            Event::Release { .. } => "Release",
            Event::SetSchedulable { .. } => "SetSchedulable",
            Event::Tick => "Tick",
        };
        let outcome = match reply {
            Ok(Reply::Granted { existing: false, .. }) => " granted",
            Ok(Reply::Granted { existing: true, .. }) => " existing",
            Ok(Reply::Released { was_held: true }) => " freed",
            Ok(Reply::Released { was_held: false }) => " not held",
            Ok(Reply::Done) => "",
            Err(RequestRefused::NoRoom(_)) => " refused: NoRoom",
            Err(refused) => &format!(" refused: {}", refused.reason()),
        };
        let mut add = |what: String| *self.counts.entry(what).or_default() += 1;
        add("events".to_owned());
        add(format!("event {kind}{outcome}"));
        let was_released = |claim: &Claim| matches!(claim.state, ClaimState::Foreign { released: true, .. });
        let ended = before.claims.iter().filter(|claim| was_released(claim));
        if matches!(event, Event::Kubelet(_)) && ended.into_iter().any(|claim| after.claim(&claim.holder).is_none()) {
            add("released pod gone".to_owned());
        }
        for effect in effects {
            match effect {
                Effect::Revoked { reason, .. } => add(format!("revoked {reason}")),
                Effect::DriftBegan(drift) => add(format!("drift {}", drift.reason.as_str())),
                Effect::Persist(Record::Put(claim)) => {
                    let had = before.claim(&claim.holder);
                    match (&claim.state, had) {
                        (ClaimState::Allocated { .. }, _) => add("put Allocated".to_owned()),
                        (ClaimState::Reserved { .. }, Some(had)) if had.grants != claim.grants => {
                            add("put planned anew".to_owned());
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
}

fn new_ledger(config: LedgerConfig) -> Ledger {
    Ledger::new("node-1".parse().unwrap(), config)
}

fn replayed(config: LedgerConfig, journal: &[Record]) -> Result<Ledger, String> {
    let mut ledger = new_ledger(config);
    for record in journal {
        ledger.replay(record.clone()).map_err(|error| error.to_string())?;
    }
    ledger.check_invariants().map_err(|violation| violation.to_string())?;
    Ok(ledger)
}
