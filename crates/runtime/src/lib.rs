//! The process kit: what every program of Berth needs around its own work. It knows nothing of GPUs.
//!
//! A `main` in the order in which things happen:
//!
//! ```text
//! tls::install_crypto_provider();
//! let args: Args = args::parse_args("BERTHD");          // every flag is also a BERTHD_… variable
//! (build the tokio runtime by hand, then inside it:)
//! let clock = SystemClock::shared();
//! let telemetry = Telemetry::start(&args.telemetry, BUILD)?;
//! let shutdown = Shutdown::new();
//! let tasks = Tasks::new(shutdown.clone());             // named tasks; a panic in one ends the process
//! shutdown.listen_for_signals(&tasks)?;
//! let readiness = Readiness::new(clock.clone());
//! let mut registry = metrics::registry(BUILD);
//!
//! let admin = Admin::bind(args.admin.admin)?;           // bind everything first, fail early
//! let mut listen = Listen::new();
//! listen.unix(&args.socket)?;
//! let grpc = listen.tcp(args.listen, tls)?;
//!
//! let mut drain = Drain::new(shutdown.clone(), clock.clone(), DEADLINE);
//! let off = readiness.clone();
//! drain.phase("readiness off", async move { off.shut_down() });
//! let refuse = drain.token("refuse new work");
//! let end_streams = drain.token("end streams");         // every stream ends on it
//! drain.phase("grpc", …);                               // the server's own end
//! let stop = drain.token("stop workers");
//! drain.phase("flush", …);
//! let stop_admin = drain.token("admin off");            // /readyz answers until here
//! drain.phase("tasks", async move { tasks.join().await });
//!
//! announce::write_addresses(&addresses)?;
//! let outcome = drain.run().await;
//! telemetry.flush(…).await;
//! outcome.exit_code()
//! ```
#![forbid(unsafe_code)]

pub mod admin;
pub mod announce;
pub mod args;
#[cfg(feature = "authority")]
pub mod authority;
mod build_info;
mod clock;
pub mod dial;
pub mod file_watch;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod identity;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod listen;
pub mod metrics;
mod readiness;
pub mod secret_file;
mod shutdown;
mod tasks;
pub mod telemetry;
pub mod tls;

pub use build_info::BuildInfo;
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use readiness::{Block, Pending, Readiness};
pub use shutdown::{Drain, Outcome, Shutdown};
pub use tasks::Tasks;
