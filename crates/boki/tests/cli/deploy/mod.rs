//! Deploying apps: switching, failing, going back, and being killed in the middle of it.

pub(crate) mod app;
mod crashes;
mod switching;
