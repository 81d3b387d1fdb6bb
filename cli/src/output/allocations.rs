//! `berthctl allocations`.

use berth_placement::MemoryBytes;
use serde::Serialize;

use super::{Cell, Flow, Page, Report, Table, Tone};
use crate::view::{AllocationState, Book, Grant, Holder, Node};

/// The book, with the node's devices at hand to tell indexes for people.
#[derive(Debug, Serialize)]
pub(crate) struct Allocations {
    #[serde(flatten)]
    pub(crate) book: Book,
    #[serde(skip)]
    pub(crate) node: Node,
}

impl Report for Allocations {
    fn render(&self, page: &mut Page) {
        let Self { book, node } = self;
        if book.allocations.is_empty() {
            page.line(&format!("Nobody holds anything of {}.", node.name));
        } else {
            page.table(&held(book, page));
        }
        if !book.out_of_band.is_empty() {
            page.blank();
            page.line("Processes on GPUs that nobody gave to them:");
            page.table(&out_of_band(book, node, page));
        }
    }
}

fn held(book: &Book, page: &Page) -> Table {
    let mut table = Table::new([
        ("HOLDER", Flow::Wrap(24)),
        ("STATE", Flow::Fixed),
        ("GPUS", Flow::Wrap(12)),
        ("SINCE", Flow::Fixed),
        ("LAPSES", Flow::Fixed),
        ("CLIENT", Flow::Wrap(20)),
    ]);
    for allocation in &book.allocations {
        let holder = match &allocation.holder {
            // The state says already that it is a lease; the id alone can be copied to `release --lease`.
            Some(Holder::LeaseId(id)) => id.clone(),
            _ => allocation.holder_name(),
        };
        let tone = match allocation.state {
            AllocationState::Reserved => Tone::Warning,
            AllocationState::Allocated | AllocationState::Leased => Tone::Good,
            AllocationState::Foreign | AllocationState::Unknown => Tone::Plain,
        };
        let grants: Vec<_> = allocation.grants.iter().map(Grant::to_string).collect();
        table.row([
            Cell::from(holder),
            Cell::toned(allocation.state.as_str(), tone),
            grants.join(", ").into(),
            page.since(allocation.granted_unix_ms).into(),
            allocation
                .deadline_unix_ms
                .map(|deadline| page.until(deadline))
                .unwrap_or_default()
                .into(),
            Cell::from(&allocation.client),
        ]);
    }
    table
}

fn out_of_band(book: &Book, node: &Node, page: &Page) -> Table {
    let mut table = Table::new([
        ("GPU", Flow::Fixed),
        ("PID", Flow::Fixed),
        ("MEMORY", Flow::Fixed),
        ("SINCE", Flow::Fixed),
    ]);
    for process in &book.out_of_band {
        let device = node.device(&process.device_uuid);
        let memory = process
            .used_memory_bytes
            .map(|bytes| MemoryBytes::new(bytes).to_string());
        table.row([
            Cell::from(device.map_or_else(|| process.device_uuid.clone(), |device| device.index.to_string())),
            process.pid.to_string().into(),
            memory.unwrap_or_default().into(),
            page.since(process.since_unix_ms).into(),
        ]);
    }
    table
}
