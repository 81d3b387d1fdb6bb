//! What berthctl shows: the types behind the JSON and the tables.
//!
//! Their JSON is a contract: camelCase names as in the .proto file, numbers as numbers, enumerations in CamelCase,
//! points in time as `…UnixMs`, lists always there, what is not known left out. Filled from the wire by
//! [`crate::convert`] alone.

mod book;
mod cluster;
mod node;

pub(crate) use book::{
    Allocation, AllocationState, AskedGpu, Book, DeviceVerdict, Grant, Holder, OutOfBandUse, Shape, Verdict,
};
pub(crate) use cluster::{ClusterNode, ClusterNodes, Decided, Explained, Opinion, SimulatedPod, SimulationResult};
pub(crate) use node::{
    ComputeMode, Condition, Device, DeviceStatus, Drift, Driver, Health, HealthReason, HealthState, Mig, MigInstance,
    Node, NvlinkPeer, Process, RemappedRows, Room,
};
