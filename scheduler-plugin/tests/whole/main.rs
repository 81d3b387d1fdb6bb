//! The scheduler as a whole, in this process, against daemons that speak `berth.node.v1` over real sockets and fail on
//! demand; and as a real process against real berthd.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bind;
mod fake_node;
mod grpc;
mod nodes;
mod process;
mod scheduler;
mod tls;
