//! `/filter`: which of the offered nodes take the pod.

use std::{borrow::Cow, collections::BTreeMap};

use berth_kube_api::{
    Pod,
    extender::{ExtenderArgs, ExtenderFilterResult, HostName, NodeList, RawNode},
    pod_shape,
};
use berth_placement::{GpuShape, PodRef, Shape};
use uuid::Uuid;

use super::{Answer, Extender, Top, answer};
use crate::{cluster::Ranking, decide::Verdict, decisions::NAMED, pods::Ask};

/// The nodes of a request, in the form in which the answer must be.
#[derive(Debug)]
pub(super) enum Offer<'a> {
    Names(Vec<HostName<'a>>),
    Nodes(NodeList),
}

/// A request that says something, though not what the protocol asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Senseless {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What becomes of a node that was offered.
#[derive(Debug)]
enum Fate<R> {
    Kept,
    /// It takes the pod, but others are better.
    Spared,
    Refused(R),
}

/// What filter and prioritize are asked, understood.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) pod: Pod,
    pub(super) shape: Shape,
    pub(super) offer: Offer<'a>,
}

impl<'a> Offer<'a> {
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Names(names) => names.iter().map(|name| &**name).collect(),
            Self::Nodes(nodes) => nodes.items.iter().map(RawNode::name).collect(),
        }
    }

    /// Leaves those that are kept, and tells who was refused. Fates by position. Nothing is copied: there are thousands.
    fn sort_out<R>(&mut self, fates: Vec<Fate<R>>) -> Vec<(HostName<'a>, R)> {
        let mut refused = Vec::new();
        match self {
            Self::Names(names) => {
                for (name, fate) in std::mem::take(names).into_iter().zip(fates) {
                    match fate {
                        Fate::Kept => names.push(name),
                        Fate::Spared => {}
                        Fate::Refused(reason) => refused.push((name, reason)),
                    }
                }
            }
            Self::Nodes(nodes) => {
                for (node, fate) in std::mem::take(&mut nodes.items).into_iter().zip(fates) {
                    match fate {
                        Fate::Kept => nodes.items.push(node),
                        Fate::Spared => {}
                        Fate::Refused(reason) => refused.push((HostName(Cow::Owned(node.into_name())), reason)),
                    }
                }
            }
        }
        refused
    }

    /// In the form that was asked, for the answer.
    fn into_answer(self) -> (Option<NodeList>, Option<Vec<HostName<'a>>>) {
        match self {
            Self::Names(names) => (None, Some(names)),
            Self::Nodes(nodes) => (Some(nodes), None),
        }
    }
}

impl<'a> Asked<'a> {
    pub(super) fn of(args: ExtenderArgs<'a>) -> Result<Self, Senseless> {
        let senseless = |reason, message: &str| Senseless {
            reason,
            message: message.to_owned(),
        };
        let pod = args.pod.ok_or_else(|| senseless("NoPod", "the request has no Pod"))?;
        // Both should not be; NodeNames is the newer form and the cheaper answer.
        let offer = match (args.node_names, args.nodes) {
            (Some(names), _) => Offer::Names(names),
            (None, Some(nodes)) => Offer::Nodes(nodes),
            (None, None) => return Err(senseless("NoNodes", "the request has neither NodeNames nor Nodes")),
        };
        let shape = pod_shape(&pod).map_err(|error| Senseless {
            reason: error.reason(),
            message: error.to_string(),
        })?;
        Ok(Self { pod, shape, offer })
    }

    pub(super) fn pod_ref(&self) -> Result<PodRef, Senseless> {
        let meta = &self.pod.metadata;
        let uid = meta.uid.parse();
        uid.and_then(|uid| PodRef::new(&meta.namespace, &meta.name, uid))
            .map_err(|error| Senseless {
                reason: "InvalidPod",
                message: error.to_string(),
            })
    }
}

impl Extender {
    pub(super) fn filter(&self, args: ExtenderArgs<'_>, top: Top) -> Answer {
        let result = Asked::of(args).and_then(|asked| self.filter_asked(asked, top));
        result.unwrap_or_else(|Senseless { reason, message }| {
            let result = ExtenderFilterResult {
                error: format!("{reason}: {message}"),
                ..ExtenderFilterResult::default()
            };
            answer("refused", result)
        })
    }

    fn filter_asked(&self, asked: Asked<'_>, Top(top): Top) -> Result<Answer, Senseless> {
        if asked.shape.gpu == GpuShape::None {
            return Ok(self.pass_everything(asked));
        }
        // An error is tried again soon; "fits nowhere" would wait for something to change.
        if !self.cluster.is_known() {
            return Err(Senseless {
                reason: "ClusterUnknown",
                message: "the API server has not told yet which nodes there are: try again".to_owned(),
            });
        }
        let pod = asked.pod_ref()?;
        let Asked { shape, mut offer, .. } = asked;
        let names = offer.names();
        let known = self.pods.known(&pod.uid);
        let ranking = self.cluster.rank_top(&shape, &names, &known, top.max(NAMED));
        let verdict = Verdict {
            candidates: names.len(),
            fitting: ranking.fits.len(),
            ranked: named(&names, &ranking),
            best: ranking.best.as_ref().map(|(node, plan)| (node, plan)),
            refused: ranking.refused.iter().map(|it| (names[it.at], &it.refusal)).collect(),
        };
        let decision = self.decider.decided(&pod, &shape, verdict);
        let ask = Ask {
            shape: shape.clone(),
            decision,
        };
        let refused = ranking.fits.is_empty().then(|| self.decisions.why(decision)).flatten();
        if self.pods.remember(pod.clone(), ask) {
            self.cluster.observe(&shape);
        }
        // Once per reason, not once per attempt.
        if let Some(why) = refused
            && self.pods.get(&pod.uid).is_some_and(|seen| seen.is_news(&why))
        {
            self.reserver.binder.refused(&pod, &why);
        }

        let outcome = if ranking.fits.is_empty() { "nofit" } else { "ok" };
        let mut fates: Vec<_> = std::iter::repeat_with(|| Fate::Spared).take(names.len()).collect();
        // One node is a choice: nobody reads why it was not another, and in a full cluster that would be most of the answer.
        let is_chosen = top == 1 && !ranking.fits.is_empty();
        for at in ranking.fits.into_iter().take(top) {
            fates[at] = Fate::Kept;
        }
        for it in ranking.refused.into_iter().filter(|_| !is_chosen) {
            let at = it.at;
            fates[at] = Fate::Refused(it);
        }
        let mut failed = BTreeMap::new();
        let mut unresolvable = BTreeMap::new();
        for (name, it) in offer.sort_out(fates) {
            let map = if it.eviction_helps {
                &mut failed
            } else {
                &mut unresolvable
            };
            map.insert(name, it.refusal.to_string());
        }
        let (nodes, node_names) = offer.into_answer();
        let result = ExtenderFilterResult {
            nodes,
            node_names,
            failed_nodes: Some(failed),
            failed_and_unresolvable_nodes: Some(unresolvable),
            error: String::new(),
        };
        Ok(answer(outcome, result))
    }

    /// A pod without GPUs is nobody's business here, but where bind is configured it comes back for that.
    fn pass_everything(&self, asked: Asked<'_>) -> Answer {
        if let Ok(pod) = asked.pod_ref() {
            let ask = Ask {
                shape: asked.shape,
                decision: Uuid::nil(),
            };
            self.pods.remember(pod, ask);
        }
        let (nodes, node_names) = asked.offer.into_answer();
        let result = ExtenderFilterResult {
            nodes,
            node_names,
            ..ExtenderFilterResult::default()
        };
        answer("no_gpu", result)
    }
}

/// The best nodes by name.
pub(super) fn named(names: &[&str], ranking: &Ranking) -> Vec<String> {
    ranking
        .fits
        .iter()
        .take(NAMED)
        .map(|at| names[*at].to_owned())
        .collect()
}
