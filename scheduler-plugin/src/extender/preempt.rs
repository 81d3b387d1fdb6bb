//! `/preempt`: which of the pods that kube-scheduler would evict must go.

use std::collections::BTreeMap;

use berth_kube_api::{
    extender::{ExtenderPreemptionArgs, ExtenderPreemptionResult, MetaPod, MetaVictims},
    pod_shape,
};
use berth_placement::{GpuShape, NodeName, PodUid, Shape};

use super::{Answer, Extender, ExtenderError, answer};

impl Extender {
    /// Nodes on which no eviction helps are left out; where nothing is left kube-scheduler evicts nobody.
    pub(super) fn preempt(&self, args: ExtenderPreemptionArgs) -> Result<Answer, ExtenderError> {
        let pod = args
            .pod
            .ok_or_else(|| senseless("NoPod", "the request has no Pod".to_owned()))?;
        let shape = pod_shape(&pod).map_err(|error| senseless(error.reason(), error.to_string()))?;
        let asked = by_uid(args.node_name_to_meta_victims, args.node_name_to_victims);
        let kept = asked
            .into_iter()
            .filter_map(|(node, victims)| Some((self.trim(&shape, &node, victims)?, node)));
        let result = ExtenderPreemptionResult {
            node_name_to_meta_victims: kept.map(|(victims, node)| (node, victims)).collect(),
        };
        let outcome = if result.node_name_to_meta_victims.is_empty() {
            "nofit"
        } else {
            "ok"
        };
        Ok(answer(outcome, result))
    }

    fn trim(&self, shape: &Shape, node: &str, victims: MetaVictims) -> Option<MetaVictims> {
        if shape.gpu == GpuShape::None {
            return Some(victims);
        }
        let node: NodeName = node.parse().ok()?;
        let uids: Vec<PodUid> = victims
            .pods
            .iter()
            .map(|pod| pod.uid.parse())
            .collect::<Result<_, _>>()
            .ok()?;
        let must_go = self.cluster.must_go(shape, &node, &uids)?;
        let pods: Vec<_> = victims
            .pods
            .into_iter()
            .filter(|pod| must_go.iter().any(|uid| uid.as_str() == pod.uid))
            .collect();
        Some(MetaVictims {
            // Which of the victims a budget protects is not told: no more than there are.
            num_pdb_violations: victims
                .num_pdb_violations
                .min(i64::try_from(pods.len()).unwrap_or(i64::MAX)),
            pods,
        })
    }
}

const fn senseless(reason: &'static str, message: String) -> ExtenderError {
    ExtenderError::Protocol { reason, message }
}

/// Either form, by UID: so is the answer.
fn by_uid(
    meta: Option<BTreeMap<String, MetaVictims>>,
    full: Option<BTreeMap<String, berth_kube_api::extender::Victims>>,
) -> BTreeMap<String, MetaVictims> {
    if let Some(meta) = meta.filter(|meta| !meta.is_empty()) {
        return meta;
    }
    let victims = |victims: berth_kube_api::extender::Victims| MetaVictims {
        pods: victims
            .pods
            .into_iter()
            .map(|pod| MetaPod { uid: pod.metadata.uid })
            .collect(),
        num_pdb_violations: victims.num_pdb_violations,
    };
    full.unwrap_or_default()
        .into_iter()
        .map(|(node, it)| (node, victims(it)))
        .collect()
}
