//! What a Rust function author or client of Boki imports.
