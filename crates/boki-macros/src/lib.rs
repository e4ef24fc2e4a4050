//! The attribute macros of `boki-sdk`, which re-exports them: see there.
//!
//! What they expand to names everything by `::boki`, under which a function author imports the SDK:
//! `boki = { package = "boki-sdk", .. }` in `Cargo.toml`.

mod function;
mod options;

use proc_macro::TokenStream;

/// Makes an `async fn` a function of Boki.
///
/// ```ignore
/// use boki::prelude::*;
///
/// /// Holds a seat.
/// #[boki::function(timeout = "30s", retries = 5)]
/// async fn hold(cx: &Cx, input: Hold) -> Result<Seat> {
///     cx.book().append(b"held").tags(["seat/4"]).await?;
///     Ok(Seat { number: 4 })
/// }
///
/// fn main() -> boki::Result<()> {
///     boki::serve![hold]
/// }
/// ```
///
/// - It takes `cx: &Cx`, an input, both (in this order) or neither, and returns a `Result` whose error can become a
///   `Failure`.
/// - Input and output are JSON, by `serde`; of the type `Bytes`, they are raw bytes; of the types `InputStream` and
///   `OutputStream`, raw bytes that come and go piece by piece.
/// - With the option `http` it answers HTTP requests: it takes a `boki::http::Request` and returns a `boki::http::Response`.
/// - Options: `name = ".."` (otherwise the name of the `fn`), `timeout = "30s"` (units `ms`, `s`, `m`, `h`), `retries = 3`
///   (how often a call is tried again when its worker is lost or its failure is retryable).
/// - The documentation of the `fn`, its first line, is what lists of functions show.
///
/// The name of the `fn` is what `serve!` and `Worker::with` take; `hold::call(cx, input)` runs it in place, as an ordinary
/// function.
#[proc_macro_attribute]
pub fn function(options: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
