//! What can be appended, or given to a function.

use bytes::Bytes;
use serde::Serialize;

use crate::error::{Error, Result};

/// Bytes and what they are.
#[derive(Clone, Debug)]
pub struct Payload {
    pub(crate) bytes: Result<Bytes>,
    pub(crate) content_type: &'static str,
}

/// Anything that is a payload: bytes and texts in all their forms, and [`Json`].
pub trait IntoPayload {
    /// Makes it one. A failure shows when the payload is used.
    fn into_payload(self) -> Payload;
}

/// A value whose payload is its JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_payload(self) -> Payload {
        let bytes = serde_json::to_vec(&self.0).map(Bytes::from).map_err(Error::from);
        Payload { bytes, content_type: "application/json" }
    }
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Payload {
        self
    }
}

impl<const N: usize> IntoPayload for &[u8; N] {
    fn into_payload(self) -> Payload {
        Bytes::copy_from_slice(self).into_payload()
    }
}

impl IntoPayload for Bytes {
    fn into_payload(self) -> Payload {
        Payload { bytes: Ok(self), content_type: "" }
    }
}

/// Implements the rest by conversion to `Bytes`.
macro_rules! payloads {
    ($($type:ty, $self:ident => $bytes:expr;)*) => {
        $(impl IntoPayload for $type {
            fn into_payload($self) -> Payload {
                Bytes::into_payload($bytes)
            }
        })*
    };
}

payloads! {
    &[u8], self => Bytes::copy_from_slice(self);
    &str, self => Bytes::copy_from_slice(self.as_bytes());
    &String, self => Bytes::copy_from_slice(self.as_bytes());
    &Vec<u8>, self => Bytes::copy_from_slice(self);
    &Bytes, self => self.clone();
    Vec<u8>, self => self.into();
    String, self => self.into();
}
