//! `berthctl explain`.

use serde::Serialize;

use super::{Cell, Flow, Page, Report, Table, Tone, gpu_list, short_uuid};
use crate::view::{Node, Verdict};

/// Whether a shape fits, with the node's devices at hand to show them.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// What was asked, in words.
    pub(crate) asked: String,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    #[serde(skip)]
    pub(crate) node: Node,
}

impl Report for Explanation {
    fn render(&self, page: &mut Page) {
        let Self { asked, verdict, node } = self;
        if verdict.fits {
            page.line(&format!("{asked}: fits on {}", node.name));
            page.line(&format!("Would get {}", gpu_list(&verdict.plan)));
        } else {
            page.line(&format!("{asked}: does not fit on {}", node.name));
            page.line(&format!("{}: {}", verdict.reason, verdict.message));
        }
        if verdict.devices.is_empty() {
            return;
        }
        let mut table = Table::new([
            ("GPU", Flow::Fixed),
            ("UUID", Flow::Fixed),
            ("MODEL", Flow::Wrap(6)),
            ("FITS", Flow::Fixed),
            ("REASON", Flow::Fixed),
            ("MESSAGE", Flow::Wrap(24)),
        ]);
        for device in &verdict.devices {
            let model = node.device(&device.device_uuid).map(|known| known.model.clone());
            let planned = verdict.plan.iter().any(|grant| grant.device_uuid == device.device_uuid);
            let fits = match (device.fits, planned) {
                (true, true) => Cell::toned("yes, planned", Tone::Good),
                (true, false) => Cell::toned("yes", Tone::Good),
                (false, _) => Cell::toned("no", Tone::Bad),
            };
            table.row([
                Cell::from(device.index.to_string()),
                short_uuid(&device.device_uuid, &node.devices).into(),
                model.unwrap_or_default().into(),
                fits,
                Cell::from(&device.reason),
                Cell::from(&device.message),
            ]);
        }
        page.blank();
        page.table(&table);
    }
}
