//! The process kit: what every program of Berth needs around its own work. It knows nothing of GPUs.
//!
//! A program is a `main` that parses and runs, and an `app` that binds, announces and serves:
//!
//! ```text
//! let args: Args = args::parse_args("BERTHD");          // every flag is also a BERTHD_… variable
//! process::run(BUILD, &telemetry, Threads::Main, async |context| {
//!     let admin = Admin::bind(args.admin.admin)?;       // bind everything first, fail early
//!     let mut listen = Listen::new();
//!     let grpc = listen.tcp(args.listen, tls)?;
//!     let readiness = Readiness::new(context.clock.clone());
//!     let registry = metrics::registry(context.build);
//!
//!     let mut drain = context.drain(&readiness, DEADLINE);  // what happens at the end, in this order
//!     let refuse = drain.token("refuse new work");
//!     let end_streams = drain.token("end streams");     // every stream ends on it
//!     drain.phase("grpc", …);                           // the server's own end
//!     let stop = drain.token("stop workers");
//!     drain.phase("flush", …);
//!
//!     context.announce(&addresses)?;
//!     let outcome = context.serve(drain, admin, Pages { … }).await;   // a panic in a task ends it, too
//!     Ok(outcome.exit_code())
//! })
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
mod misread;
pub mod process;
mod readiness;
pub mod secret_file;
mod shutdown;
mod tasks;
pub mod telemetry;
pub mod tls;

pub use build_info::BuildInfo;
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use misread::Misread;
pub use readiness::{Block, Pending, Readiness};
pub use shutdown::{Drain, Outcome, Shutdown};
pub use tasks::Tasks;
