//! The Kubernetes types that Berth reads and writes on the wire: just the fields that it uses, and no client.
//!
//! ```text
//! JSON of the API server or of kube-scheduler ──► Pod, Node, extender::* ──pod_shape──► berth_placement::Shape
//! ```
//!
//! Unknown fields are skipped, a `null` list or map is an empty one, as Go writes and reads them.
#![forbid(unsafe_code)]

pub mod extender;
pub mod gpu_node;
pub mod names;
mod null;
pub mod nvcf;
pub mod object;
pub mod placement;
pub mod product;
pub mod quantity;
pub mod shape;

pub use gpu_node::GpuNode;
pub use object::{Node, Pod, ResourceList};
pub use quantity::{Quantity, QuantityError};
pub use shape::{ShapeOfPodError, pod_shape};
