//! The gateway from outside: every endpoint and every error, against a real server on a free port.
#![allow(clippy::unwrap_used)]

mod books;
mod calls;
mod client;
mod error_pages;
mod lifecycle;
mod limits;
mod logs;
mod mounts;
mod operation;
mod problems;
mod records;
mod retention;
mod streams;
mod subscriptions;
mod time;
mod versions;
