//! `nvca-self-managed`: registers the cluster, once (`bootstrap`) or for good (`watch`).
