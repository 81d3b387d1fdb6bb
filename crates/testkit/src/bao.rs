//! A stand-in for OpenBao: the part of its HTTP API that NVCF uses, with its state in memory.
//!
//! Owns what the API promises: JWT login, tokens and leases, policies, KV version 2, and the JWT-signing engine that NVCF
//! mounts at `services/NAME/jwt`. The core ([`Bao`]) is pure: it takes a request and the time from its clock and gives an
//! answer; sockets and key downloads are in [`server`]. It must not know who calls it. Where it differs from OpenBao, it
//! is wrong. API: <https://openbao.org/api-docs/>; the signing engine: vault-plugin-secrets-jwt (outfoxx), as NVCF ships it.
//!
//! Only for tests: nothing here guards a secret of the real world.

mod answer;
pub mod client;
mod core;
pub(crate) mod duration;
pub mod jwt;
mod jwt_auth;
mod jwt_sign;
mod kv;
pub mod nvcf;
mod policy;
pub mod server;
mod sys;
mod tokens;

pub use answer::{Answer, Refusal};
pub use client::{BaoClient, ClientError};
pub use core::{Bao, Request, Verb};
