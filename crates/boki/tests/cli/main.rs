//! The command line, as a user meets it: the real binary against a real server process.
#![allow(clippy::unwrap_used)]

mod bench;
mod books;
mod calls;
mod deploy;
mod dev;
mod doctor;
mod log;
mod logs;
mod offline;
mod process;
mod server;
mod time;
mod workers;
