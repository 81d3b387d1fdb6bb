//! Client and wire types of the control plane's cluster service (SIS, today ICMS). Knows no Kubernetes.
#![forbid(unsafe_code)]
