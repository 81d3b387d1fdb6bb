//! `/filter`: which of the offered nodes take the pod.

use std::collections::BTreeMap;

use berth_kube_api::{
    Pod,
    extender::{ExtenderArgs, ExtenderFilterResult, NodeList, RawNode},
    pod_shape,
};
use berth_placement::{GpuShape, PodRef, Shape};
use uuid::Uuid;

use super::{Answer, Extender, answer};
use crate::{cluster::Ranking, decide::Verdict, decisions::NAMED, pods::Ask};

/// The nodes of a request, in the form in which the answer must be.
#[derive(Debug)]
pub(super) enum Offer {
    Names(Vec<String>),
    Nodes(NodeList),
}

/// A request that says something, though not what the protocol asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Senseless {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What filter and prioritize are asked, understood.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) pod: Pod,
    pub(super) shape: Shape,
    pub(super) offer: Offer,
}

impl Offer {
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Names(names) => names.iter().map(String::as_str).collect(),
            Self::Nodes(nodes) => nodes.items.iter().map(RawNode::name).collect(),
        }
    }

    /// Those for which `keep` says so, by position.
    fn keep(self, keep: &[bool]) -> (Option<NodeList>, Option<Vec<String>>) {
        let mut keep = keep.iter().copied();
        let mut kept = || keep.next().unwrap_or(false);
        match self {
            Self::Names(mut names) => {
                names.retain(|_| kept());
                (None, Some(names))
            }
            Self::Nodes(mut nodes) => {
                nodes.items.retain(|_| kept());
                (Some(nodes), None)
            }
        }
    }
}

impl Asked {
    pub(super) fn of(args: ExtenderArgs) -> Result<Self, Senseless> {
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
    pub(super) fn filter(&self, args: ExtenderArgs) -> Answer {
        let result = Asked::of(args).and_then(|asked| self.filter_asked(asked));
        result.unwrap_or_else(|Senseless { reason, message }| {
            let result = ExtenderFilterResult {
                error: format!("{reason}: {message}"),
                ..ExtenderFilterResult::default()
            };
            answer("refused", result)
        })
    }

    fn filter_asked(&self, asked: Asked) -> Result<Answer, Senseless> {
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
        let Asked { shape, offer, .. } = asked;
        let names = offer.names();
        let held = self.pods.held(&pod.uid);
        let ranking = self.cluster.rank_top(&shape, &names, held.as_ref(), NAMED);
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

        let mut failed = BTreeMap::new();
        let mut unresolvable = BTreeMap::new();
        let mut keep = vec![true; names.len()];
        for it in ranking.refused {
            keep[it.at] = false;
            let map = if it.eviction_helps {
                &mut failed
            } else {
                &mut unresolvable
            };
            map.insert(names[it.at].to_owned(), it.refusal.to_string());
        }
        let (nodes, node_names) = offer.keep(&keep);
        let outcome = if keep.contains(&true) { "ok" } else { "nofit" };
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
    fn pass_everything(&self, asked: Asked) -> Answer {
        if let Ok(pod) = asked.pod_ref() {
            let ask = Ask {
                shape: asked.shape,
                decision: Uuid::nil(),
            };
            self.pods.remember(pod, ask);
        }
        let (nodes, node_names) = match asked.offer {
            Offer::Names(names) => (None, Some(names)),
            Offer::Nodes(nodes) => (Some(nodes), None),
        };
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
