//! What one client of each load does again and again.

use std::time::Duration;

use boki_sdk::{Book, Client, Seq};
use bytes::Bytes;

use super::http::HttpConnection;
use super::latency::{Load, broken};
use crate::failure::Failure;
use crate::remote::of_server;

/// The book that everything goes to.
pub(crate) const BOOK: &str = "default";

/// Appends to a tag.
pub(crate) struct Append {
    pub(crate) book: Book,
    pub(crate) tag: String,
    pub(crate) payload: Bytes,
}

impl Load for Append {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        let append = self.book.append(self.payload.clone()).tag(&self.tag);
        append.await.map(|_| None).map_err(|error| of_server(&error, Some(BOOK)))
    }
}

/// Asks for nothing but an answer: an echo on the very connection that the other loads use.
pub(crate) struct Ping {
    pub(crate) client: Client,
}

impl Load for Ping {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        self.client.ping().await.map(|()| None).map_err(|error| of_server(&error, None))
    }
}

/// Reads the last record of a tag.
pub(crate) struct ReadLast {
    pub(crate) book: Book,
    pub(crate) tag: String,
}

impl Load for ReadLast {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        let found = self.book.read_prev(Seq::MAX).tag(self.tag.as_str()).first().await;
        match found.map_err(|error| of_server(&error, Some(BOOK)))? {
            Some(_) => Ok(None),
            None => Err(broken("a record that was appended is not found")),
        }
    }
}

/// Sends a request and reads its answer.
pub(crate) struct Exchange {
    pub(crate) connection: HttpConnection,
    pub(crate) request: Vec<u8>,
}

impl Load for Exchange {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        self.connection.exchange(&self.request).await.map(|()| None)
    }
}

/// Calls a function that measures its own call of another one.
pub(crate) struct Nested(pub(crate) Exchange);

impl Load for Nested {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        let Exchange { connection, request } = &mut self.0;
        let nanoseconds =
            connection.exchange_with(request, |body| std::str::from_utf8(body).ok()?.parse().ok()).await?;
        let nanoseconds = nanoseconds.ok_or_else(|| broken("the function does not say how long its call took"))?;
        Ok(Some(Duration::from_nanos(nanoseconds)))
    }
}
