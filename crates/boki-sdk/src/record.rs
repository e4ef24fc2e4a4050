//! A record as a client sees it.

use std::fmt;
use std::time::{Duration, SystemTime};

use boki_log::Seq;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// A record of a book.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the order.
    pub seq: Seq,
    /// When it was ordered, in microseconds since 1970: the same for every reader, never falling as seq rises.
    pub time_us: u64,
    /// Its cache hint, if the server has any.
    pub aux: Option<Bytes>,
    body: boki_log::batch::RecordBody,
}

impl Record {
    /// When it was ordered.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.time_us)
    }

    /// Its tags, sorted.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.body.tags()
    }

    /// Whether it has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|own| own == tag)
    }

    /// Its payload.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.body.payload()
    }

    /// Its payload, sharing memory with the other records of the same read.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.body.payload_bytes()
    }

    /// Its payload, taken as JSON.
    ///
    /// # Errors
    /// [`Error::Json`](crate::Error::Json).
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(self.data())?)
    }
}

impl From<boki_log::Record> for Record {
    fn from(record: boki_log::Record) -> Record {
        Record { seq: record.seq, time_us: record.time_us, aux: record.aux, body: record.body }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("seq", &self.seq)
            .field("time_us", &self.time_us)
            .field("body", &self.body)
            .finish()
    }
}
