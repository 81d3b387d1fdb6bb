//! The ConfigMap `nvcfbackend-self-managed`: parsed to what SIS is asked for.
