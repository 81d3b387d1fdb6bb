//! The agent `nvca`: what this cluster has, told to SIS; what SIS asks for, run as pods.
pub mod work;
