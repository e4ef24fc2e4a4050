//! Deploying apps: switching, failing, going back, and being killed in the middle of it.

mod app;
mod crashes;
mod switching;
