//! `nvca-mirror`: pull secrets in every namespace that needs them.
