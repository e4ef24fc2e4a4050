//! HTTP functions: a [`Request`] in, a [`Response`] out.
//!
//! ```
//! use boki_sdk::http::{Request, Response};
//! use boki_sdk::prelude::*;
//!
//! async fn web(cx: &Cx, mut request: Request) -> Result<Response> {
//!     let segments = request.segments();
//!     let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
//!     match (request.method(), segments.as_slice()) {
//!         ("GET", ["items", id]) => Ok(Response::text(format!("item {id}"))),
//!         ("POST", ["items"]) => {
//!             let name: String = request.json().await?;
//!             cx.book().append(name.into_bytes()).tags(["items"]).await?;
//!             Ok(Response::new().status(201))
//!         }
//!         _ => Ok(Response::text("there is no such page").status(404)),
//!     }
//! }
//! ```
//!
//! Such a function is made with `#[boki::function(http)]` or [`Worker::http`](crate::Worker::http), and mounted below a path
//! by the server's configuration. Called otherwise (by another function, on record) it sees a `POST` of `/`, and its caller
//! gets the body of what it answers.

mod cookie;
mod event;
mod request;
mod response;

pub use cookie::{Cookie, SameSite};
pub use event::{Event, Events, events};
pub use request::Request;
pub use response::{Head, Response};
