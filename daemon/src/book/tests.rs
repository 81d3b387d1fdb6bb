//! The book end to end, without gRPC: crash at any byte, a disk that is full, leases that outlive their stream.
