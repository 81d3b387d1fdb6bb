//! `/prioritize`: how good each node is, over the whole range of scores.

use berth_kube_api::extender::{ExtenderArgs, HostPriority, SCORES};
use berth_placement::GpuShape;

use super::{
    Answer, Extender, ExtenderError, answer,
    filter::{Asked, Senseless, named},
};
use crate::{cluster::Ranking, decisions::device_names};

impl Extender {
    pub(super) fn prioritize(&self, args: ExtenderArgs<'_>) -> Result<Answer, ExtenderError> {
        let asked = Asked::of(args).map_err(protocol)?;
        let names = asked.offer.names();
        if asked.shape.gpu == GpuShape::None {
            return Ok(answer("no_gpu", scores(&names, &[])));
        }
        let pod = asked.pod_ref().map_err(protocol)?;
        let ranking = self.cluster.rank(&asked.shape, &names, &self.pods.known(&pod.uid));
        if let Some(seen) = self.pods.get(&pod.uid) {
            self.refine(seen.ask().decision, &names, &ranking);
        }
        Ok(answer("ok", scores(&names, &ranking.fits)))
    }

    /// By now the other plugins have had their say: these are the nodes that are left.
    fn refine(&self, decision: uuid::Uuid, names: &[&str], ranking: &Ranking) {
        let ranked = named(names, ranking);
        let devices = ranking
            .best
            .as_ref()
            .map(|(_, plan)| device_names(plan))
            .unwrap_or_default();
        self.decisions.update(decision, |decision| {
            decision.ranked = ranked;
            decision.devices = devices;
        });
    }
}

fn protocol(senseless: Senseless) -> ExtenderError {
    ExtenderError::Protocol {
        reason: senseless.reason,
        message: senseless.message,
    }
}

/// The best node alone has the highest score, the rest follow by rank down to the lowest; nodes that do not fit have the
/// lowest too. kube-scheduler picks by chance among equals, so that only the order below the best is coarse.
fn scores<'a>(names: &[&'a str], fits: &[usize]) -> Vec<HostPriority<'a>> {
    let mut scores = vec![*SCORES.start(); names.len()];
    let steps = names.len().saturating_sub(1).max(1);
    for (rank, at) in fits.iter().enumerate() {
        // At most SCORES.end(): a small number.
        let below = (10 * rank).div_ceil(steps);
        scores[*at] = SCORES.end() - i64::try_from(below).unwrap_or(0).min(*SCORES.end());
    }
    let hosts = names.iter().zip(scores);
    hosts.map(|(host, score)| HostPriority { host, score }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(nodes: usize, fits: &[usize]) -> Vec<i64> {
        let names = vec!["n"; nodes];
        scores(&names, fits).into_iter().map(|it| it.score).collect()
    }

    #[test]
    fn scores_span_the_whole_range_by_rank() {
        assert_eq!(levels(1, &[0]), [10]);
        assert_eq!(levels(2, &[1, 0]), [0, 10]);
        assert_eq!(levels(3, &[0, 1, 2]), [10, 5, 0]);
        let eleven: Vec<usize> = (0..11).collect();
        assert_eq!(levels(11, &eleven), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn only_the_best_has_the_best_score_however_many_nodes_there_are() {
        let order: Vec<usize> = (0..5000).collect();
        let levels = levels(5000, &order);
        assert_eq!((levels[0], levels[1], levels[4999]), (10, 9, 0));
        assert!(levels.is_sorted_by(|one, other| one >= other));
    }

    #[test]
    fn nodes_that_do_not_fit_are_last() {
        assert_eq!(levels(3, &[2]), [0, 0, 10]);
        assert_eq!(levels(4, &[2, 0]), [6, 0, 10, 0]);
        assert_eq!(levels(2, &[]), [0, 0]);
        assert!(levels(0, &[]).is_empty());
    }
}
