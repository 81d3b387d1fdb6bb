//! The token that goes with each request: read from its file every time, looked into, never shown.
//!
//! A token is decoded without verifying it: only to tell in plain words what the service would refuse with a bare 401, 403
//! or 409. Whether it is genuine is for the service to say.

mod claims;
mod file;
mod rules;

pub use claims::Claims;
pub use file::TokenFile;
pub use rules::{Audience, TokenError, TokenRules, TokenWarning};

#[cfg(test)]
mod tests;
