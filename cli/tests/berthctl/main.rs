//! berthctl as a process: against a daemon of our own making that does what the real one rarely does, and against the
//! real one.

mod commands;
mod daemon;
mod fake;
mod kit;
mod run;
mod terminal;
mod watch;
