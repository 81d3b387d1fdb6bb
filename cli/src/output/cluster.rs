//! What the scheduler tells: `berthctl cluster`, `explain pod`, `explain shape`, `simulate`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Cell, Flow, Page, Report, Table, Tone, gpu_list};
use crate::view::{ClusterNode, ClusterNodes, Explained, Opinion, SimulationResult};

impl Report for ClusterNodes {
    fn render(&self, page: &mut Page) {
        let sum = |of: fn(&ClusterNode) -> u32| self.nodes.iter().map(of).sum::<u32>();
        let (gpus, free) = (sum(|node| node.gpus), sum(|node| node.gpus_free));
        page.line(&format!(
            "{} nodes, {gpus} GPUs, {free} of them free as a whole; policy {}",
            self.nodes.len(),
            self.policy
        ));
        page.blank();
        let mut table = Table::new([
            ("NODE", Flow::Wrap(16)),
            ("MODELS", Flow::Wrap(8)),
            ("GPUS", Flow::Fixed),
            ("FREE", Flow::Fixed),
            ("SHARES", Flow::Fixed),
            ("ILL", Flow::Fixed),
            ("STATE", Flow::Wrap(20)),
            ("REACHED AT", Flow::Wrap(20)),
        ]);
        for node in &self.nodes {
            table.row([
                Cell::from(&node.name),
                node.models.join(", ").into(),
                node.gpus.to_string().into(),
                node.gpus_free.to_string().into(),
                share(node.free_milli.into()).into(),
                match node.gpus_unhealthy {
                    0 => Cell::from("0"),
                    ill => Cell::toned(ill.to_string(), Tone::Bad),
                },
                state(node),
                Cell::from(&node.target),
            ]);
        }
        page.table(&table);
    }
}

fn state(node: &ClusterNode) -> Cell {
    match (node.contact.as_str(), node.usable) {
        ("Up", true) if node.verified => Cell::toned("takes pods", Tone::Good),
        ("Up", true) => Cell::toned("takes pods, unverified", Tone::Warning),
        (_, true) => Cell::toned(format!("takes pods, {}", node.problem), Tone::Warning),
        ("Starting", false) => Cell::toned("not heard of yet", Tone::Warning),
        (_, false) if node.problem.is_empty() => Cell::toned("takes no pods", Tone::Bad),
        (_, false) => Cell::toned(&node.problem, Tone::Bad),
    }
}

/// Thousandths as a number of GPUs.
fn share(milli: u64) -> String {
    format!("{}.{}", milli / 1000, milli % 1000 / 100)
}

/// An explanation, and whether it is one node's that people want to see device by device.
impl Report for Explained {
    fn render(&self, page: &mut Page) {
        if let Some(decision) = &self.decision {
            page.line(&format!(
                "{}: {}, {} ago",
                decision.pod,
                decision.state,
                page.since(decision.at_unix_ms)
            ));
            page.line(&format!("  {}", decision.why));
            if !decision.node.is_empty() {
                page.line(&format!("  {} on {}", decision.devices.join(", "), decision.node));
            }
            if !decision.reason.is_empty() {
                page.line(&format!("  {}: {}", decision.reason, decision.message));
            }
            page.line(&format!("  decision {}", decision.id));
            page.blank();
        }
        let (fitting, candidates) = (self.fitting, self.candidates);
        page.line(&format!(
            "{}: fits on {fitting} of {candidates} nodes, by {}",
            self.asks, self.policy
        ));
        if !self.refused.is_empty() {
            page.line(&format!("Refused: {}", counts(&self.refused)));
        }
        if self.nodes.is_empty() {
            return;
        }
        let mut table = Table::new([
            ("RANK", Flow::Fixed),
            ("NODE", Flow::Wrap(16)),
            ("SCORE", Flow::Fixed),
            ("MADE OF", Flow::Wrap(20)),
            ("WOULD GET, OR WHY NOT", Flow::Wrap(30)),
        ]);
        for node in &self.nodes {
            table.row(row(node));
        }
        page.blank();
        page.table(&table);
        let told = self.nodes.len();
        if told < candidates as usize {
            page.blank();
            page.line(&format!(
                "{} more nodes are not shown: --limit",
                candidates as usize - told
            ));
        }
    }
}

fn row(node: &Opinion) -> [Cell; 5] {
    if node.rank == 0 {
        let ill = node.devices.iter().filter(|device| !device.fits);
        let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
        for device in ill {
            *reasons.entry(device.reason.clone()).or_default() += 1;
        }
        let why = if node.message.is_empty() {
            format!("{}: {}", node.reason, counts(&reasons))
        } else {
            format!("{}: {}", node.reason, node.message)
        };
        return [
            Cell::toned("-", Tone::Bad),
            Cell::from(&node.node),
            Cell::from(""),
            Cell::from(""),
            Cell::toned(why, Tone::Bad),
        ];
    }
    let terms: Vec<_> = node
        .terms
        .iter()
        .map(|(name, value)| format!("{name} {value:.3}"))
        .collect();
    [
        Cell::toned(node.rank.to_string(), Tone::Good),
        Cell::from(&node.node),
        format!("{:.3}", node.score).into(),
        terms.join(", ").into(),
        devices(node).into(),
    ]
}

fn devices(node: &Opinion) -> String {
    match node.grants.as_slice() {
        [] => "no GPU".to_owned(),
        [one] => gpu_list(std::slice::from_ref(one)),
        many => {
            let mut all: Vec<_> = many.iter().map(|grant| grant.index).collect();
            all.sort_unstable();
            let all: Vec<_> = all.iter().map(u32::to_string).collect();
            format!("GPUs {}", all.join(", "))
        }
    }
}

/// `3 DeviceHeld, 1 ModelMismatch`.
fn counts(reasons: &BTreeMap<String, u32>) -> String {
    let all: Vec<_> = reasons
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    all.join(", ")
}

/// A simulation, with what was asked.
#[derive(Debug, Serialize)]
pub(crate) struct Simulated {
    /// In words, in the order of the request.
    pub(crate) asked: Vec<String>,
    #[serde(flatten)]
    pub(crate) result: SimulationResult,
}

/// Pods of one shape on one node, in the order in which they come.
struct Line<'a> {
    shape: u32,
    node: &'a str,
    pods: u32,
}

impl Report for Simulated {
    fn render(&self, page: &mut Page) {
        let Self { asked, result } = self;
        page.line(&format!(
            "{} of {} pods fit; {} GPUs were free, {} would be",
            result.placed,
            result.pods.len(),
            share(result.free_milli_before),
            share(result.free_milli_after)
        ));
        page.blank();
        let mut lines: Vec<Line<'_>> = Vec::new();
        for pod in &result.pods {
            let is_its = |line: &&mut Line<'_>| line.shape == pod.shape && line.node == pod.node;
            if let Some(line) = lines.iter_mut().find(is_its) {
                line.pods += 1;
            } else {
                lines.push(Line {
                    shape: pod.shape,
                    node: &pod.node,
                    pods: 1,
                });
            }
        }
        let mut table = Table::new([
            ("PODS", Flow::Fixed),
            ("EACH ASKS", Flow::Wrap(16)),
            ("NODE", Flow::Wrap(16)),
        ]);
        for line in lines {
            let asks = asked.get(line.shape as usize).map(String::as_str).unwrap_or_default();
            let place = if line.node.is_empty() {
                Cell::toned("nowhere", Tone::Bad)
            } else {
                Cell::from(line.node)
            };
            table.row([line.pods.to_string().into(), Cell::from(asks), place]);
        }
        page.table(&table);
    }
}
