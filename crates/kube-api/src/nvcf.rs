//! The custom resources of NVCF's operator and agent. Names, groups and columns are the real ones'.

pub mod icms_request;
