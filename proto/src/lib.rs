//! The gRPC contracts of Berth: code generated from `protos/`, and the descriptor set that server reflection serves.
//!
//! This crate owns the wire and nothing else: no conversion to our own types (each program has one file for that), no
//! logic. The contract itself is documented field by field in the .proto files.
#![forbid(unsafe_code)]

/// `berth.node.v1`: the node daemon.
pub mod node {
    #[allow(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        rustdoc::all,
        reason = "generated code"
    )]
    #[allow(
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("berth.node.v1");
    }
}

/// `berth.scheduler.v1`: the scheduler.
pub mod scheduler {
    #[allow(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        rustdoc::all,
        reason = "generated code"
    )]
    #[allow(
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("berth.scheduler.v1");
    }
}

/// The kubelet's PodResources endpoint, version 1.
pub mod podresources {
    #[allow(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        rustdoc::all,
        reason = "generated code"
    )]
    #[allow(
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("v1");
    }
}

/// Every .proto file of this crate, encoded as a `google.protobuf.FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
