//! The resources of NVCF's operator and agent. Owns their forms, and what they have in common.

pub mod backend;
pub mod icms_request;
pub mod mini_service;
pub mod storage_request;

pub use backend::{NvcfBackend, NvcfBackendSpec, NvcfBackendStatus};
pub use icms_request::ICMSRequest;
pub use mini_service::MiniService;
pub use storage_request::StorageRequest;

/// An object of which nothing is known, and nothing is dropped.
fn opaque(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn opaques(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}
