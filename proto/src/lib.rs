//! The gRPC contracts of Berth: code generated from `protos/`, and the descriptor set that server reflection serves.
//!
//! This crate owns the wire and nothing else: no conversion to our own types (each program has one file for that), no
//! logic. The contract itself is documented field by field in the .proto files.
#![forbid(unsafe_code)]

/// A module with the code of one package in `v1`, which is not held to our lints.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident = $package:literal) => {
        $(#[$doc])*
        pub mod $name {
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
                tonic::include_proto!($package);
            }
        }
    };
}

generated! {
    /// `berth.node.v1`: the node daemon.
    node = "berth.node.v1"
}
generated! {
    /// `berth.scheduler.v1`: the scheduler.
    scheduler = "berth.scheduler.v1"
}
generated! {
    /// The kubelet's PodResources endpoint, version 1.
    podresources = "v1"
}

/// Every .proto file of this crate, encoded as a `google.protobuf.FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
