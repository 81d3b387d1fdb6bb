//! A ledger in a shell like the daemon's, with every promise checked after every step. Shared by the property test and the
//! replay of its logs.

mod checks;
pub(crate) mod log;
pub(crate) mod model;
pub(crate) mod shell;
