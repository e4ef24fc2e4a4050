//! The messages that travel in Boki's frames: client operations and the worker link.
