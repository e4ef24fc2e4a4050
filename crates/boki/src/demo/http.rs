//! A traveller's HTTP client: one keep-alive connection, one request at a time, and the patience to ask again.
//!
//! Whatever happens to the server or its workers, a request is repeated **with the same `Idempotency-Key`** until it
//! is answered: that is all a client has to do.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// First pause before asking again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A client that is not answered for so long gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client with its session.
#[derive(Debug)]
pub(crate) struct HttpClient {
    address: String,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// What this client has seen: sent along, so that it never reads from before it.
    position: u64,
    /// How often a connection was lost under a request, or could not be opened.
    pub(crate) lost: u64,
    /// How often the server answered that it should be asked again.
    pub(crate) asked_again: u64,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) book: &'a str,
    pub(crate) function: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) input: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
enum Failed {
    /// The connection, or the attempt to open one.
    Lost(String),
    /// The server said "not now".
    NotNow(String),
    /// The server said no.
    Refused(String),
}

impl HttpClient {
    pub(crate) fn new(address: &str) -> HttpClient {
        HttpClient { address: address.to_owned(), connection: None, position: 0, lost: 0, asked_again: 0 }
    }

    /// Calls a function until it answers.
    pub(crate) async fn call(&mut self, call: &Call<'_>) -> Result<Bytes, String> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Refused(why)) => return Err(why),
                Err(Failed::Lost(why)) => {
                    self.lost += 1;
                    self.connection = None;
                    why
                }
                Err(Failed::NotNow(why)) => {
                    self.asked_again += 1;
                    why
                }
            };
            if started.elapsed() > PATIENCE {
                return Err(format!("no answer for {PATIENCE:?}; the last attempt: {why}"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&mut self, call: &Call<'_>) -> Result<Bytes, Failed> {
        let mut request = Request::post(format!("/call/{}", call.function))
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .header("boki-book", call.book)
            .header("boki-position", self.position);
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        let request =
            request.body(Full::new(call.input.clone())).map_err(|error| Failed::Refused(error.to_string()))?;
        let lost = |error: hyper::Error| Failed::Lost(error.to_string());
        let response = self.connected().await?.send_request(request).await.map_err(lost)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(lost)?.to_bytes();
        let position = head.headers.get("boki-position").and_then(|value| value.to_str().ok()?.parse().ok());
        self.position = self.position.max(position.unwrap_or(0));
        if head.status == StatusCode::OK { Ok(body) } else { Err(problem(head.status, &body)) }
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failed> {
        let connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                let stream =
                    TcpStream::connect(&self.address).await.map_err(|error| Failed::Lost(error.to_string()))?;
                stream.set_nodelay(true).map_err(|error| Failed::Lost(error.to_string()))?;
                let opened = handshake(TokioIo::new(stream)).await;
                let (connection, driver) = opened.map_err(|error| Failed::Lost(error.to_string()))?;
                // It ends with the connection, and whoever sends a request is told why.
                tokio::spawn(driver);
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }
}

/// What the server says of a request that it did not serve.
fn problem(status: StatusCode, body: &[u8]) -> Failed {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let why = format!(
        "{} {}",
        problem["code"].as_str().unwrap_or(status.as_str()),
        problem["detail"].as_str().unwrap_or_default()
    );
    match problem["retry"].as_str() {
        Some("later" | "with_same_id") => Failed::NotNow(why),
        _ => Failed::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let of = |body: &str| problem(StatusCode::SERVICE_UNAVAILABLE, body.as_bytes());
        assert!(
            matches!(of(r#"{"code":"BK0405","detail":"busy","retry":"later"}"#), Failed::NotNow(why) if why == "BK0405 busy")
        );
        assert!(matches!(of(r#"{"code":"BK0403","retry":"with_same_id"}"#), Failed::NotNow(_)));
        assert!(matches!(of(r#"{"code":"BK0402","detail":"no","retry":"never"}"#), Failed::Refused(_)));
        assert!(matches!(of("not json"), Failed::Refused(why) if why.starts_with("503")));
    }
}
