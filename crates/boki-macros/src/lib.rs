//! The attribute macros of boki-sdk.
