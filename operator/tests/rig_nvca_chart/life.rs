//! Uninstalled and installed again, upgraded, cleaned up.
