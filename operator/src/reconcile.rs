//! `nvca-operator`: makes the cluster what the `NVCFBackend` says, and keeps it so.
