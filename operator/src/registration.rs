//! The registration of the cluster with SIS: listed first, then created, and adopted where somebody was faster.
