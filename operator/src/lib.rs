//! The slim operator and the cluster agent: registers the cluster with the control plane and runs what it asks for.
#![forbid(unsafe_code)]
