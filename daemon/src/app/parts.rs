//! The parts that [`super::build`] and [`super::Bound::run`] start: one function each.

use std::{io, path::Path, sync::Arc};

use axum::{Json, Router, routing::get};
use berth_gpu::{
    GpuBackend, Monitor, MonitorClock, MonitorConfig, MonitorHandle, NvmlBackend, SimBackend, monitor::boot_id,
};
use berth_ledger::LedgerConfig;
use berth_runtime::{
    Readiness, SharedClock,
    tls::{ServerTls, TlsProblem, TlsStatus},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::StartError;
use crate::{
    book::{self, Actor, ActorOptions, Book, Views},
    conditions::{ConditionType, Finding},
    config::{Config, DeviceSource},
    health_store::HealthStore,
    journal::{JournalError, JournalOptions},
    metrics::Metrics,
};

/// Where the NVIDIA kernel module tells of itself.
const DRIVER_PRESENT: &str = "/proc/driver/nvidia/version";

pub(super) fn restore_book(
    config: &Config,
    clock: &SharedClock,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Result<(Book, Actor), JournalError> {
    let journal = JournalOptions {
        dir: config.state_dir.clone(),
        node: config.node.clone(),
        sync: config.journal_sync,
        clock: SharedClock::clone(clock),
        write_latency: metrics.journal_write.clone(),
        sync_latency: metrics.journal_sync.clone(),
    };
    let ledger = LedgerConfig {
        default_ttl_ms: config.default_ttl_ms,
        ..LedgerConfig::default()
    };
    let options = ActorOptions {
        clock: SharedClock::clone(clock),
        metrics: metrics.clone(),
        ready: readiness.register("book"),
    };
    book::restore(config.node.clone(), ledger, journal, options)
}

/// `--simulate` always simulates; on a machine with a driver that is told loudly.
pub(super) fn start_monitor(config: &Config, clock: &SharedClock, store: &HealthStore) -> io::Result<MonitorHandle> {
    let (wall, steady) = (SharedClock::clone(clock), SharedClock::clone(clock));
    let clock = MonitorClock {
        unix_ms: Arc::new(move || wall.now_unix_ms()),
        monotonic: Arc::new(move || steady.monotonic()),
    };
    let monitor = MonitorConfig {
        boot_id: boot_id(),
        ..MonitorConfig::default()
    };
    match &config.devices {
        DeviceSource::Simulated { profile, control } => {
            if Path::new(DRIVER_PRESENT).exists() {
                warn!(%profile, "--simulate is given on a machine with an NVIDIA driver: its GPUs are ignored");
            }
            warn!(%profile, "the GPUs are simulated");
            let backend = match control {
                Some(file) => SimBackend::with_control_file(profile, &config.node, file.clone()),
                None => SimBackend::new(profile, &config.node),
            };
            Monitor::spawn(monitor, clock, store.load(), move || {
                Box::new(backend.clone()) as Box<dyn GpuBackend>
            })
        }
        DeviceSource::Nvml { library } => {
            let library = library.clone();
            let backend = move || Box::new(NvmlBackend::new(library.clone())) as Box<dyn GpuBackend>;
            Monitor::spawn(monitor, clock, store.load(), backend)
        }
    }
}

/// Certificates that were never good are a mistake to tell at once; what happens to good ones later is a condition.
pub(super) fn check_tls(status: &TlsStatus) -> Result<(), StartError> {
    match (&status.serving_until_unix_ms, &status.problem) {
        (None, Some(TlsProblem { message, .. })) => Err(StartError::Tls(message.clone())),
        _ => Ok(()),
    }
}

pub(super) async fn follow_tls(tls: Option<ServerTls>, book: Book, stop: CancellationToken) {
    const KIND: ConditionType = ConditionType::TlsReady;
    let Some(tls) = tls else {
        let off = KIND.holds("TlsOff", "TCP is served on loopback only, without TLS");
        return book.note(off).await;
    };
    let mut status = tls.status();
    loop {
        let finding = tls_finding(&status.borrow_and_update());
        book.note(finding).await;
        if !matches!(stop.run_until_cancelled(status.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

fn tls_finding(status: &TlsStatus) -> Finding {
    const KIND: ConditionType = ConditionType::TlsReady;
    match &status.problem {
        None => KIND.holds("CertificateInUse", "the certificate on disk is in use"),
        Some(TlsProblem { reason, message }) => {
            let kept = "the certificate that was good last stays in use";
            KIND.fails(reason, format!("{message}; {kept}"))
        }
    }
}

/// `/debug/ledger`: the book, the devices as it sees them and the conditions, as JSON.
pub(super) fn debug_pages(views: Views) -> Router {
    Router::new().route(
        "/debug/ledger",
        get(async move || {
            let view = views.current();
            Json(serde_json::json!({
                "generation": view.generation(),
                "reconciled": view.book.reconciled,
                "conditions": *view.conditions,
                "devices": view.book.node.devices,
                "missing": *view.book.missing,
                "cordons": *view.book.cordons,
                "claims": *view.book.claims,
                "out_of_band": *view.book.out_of_band,
                "drifts": *view.book.drifts,
            }))
        }),
    )
}
