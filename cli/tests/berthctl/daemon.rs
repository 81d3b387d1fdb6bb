//! Against the real berthd.
