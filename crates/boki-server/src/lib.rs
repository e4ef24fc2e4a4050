//! The gateway: HTTP API, native protocol, configuration, metrics.
