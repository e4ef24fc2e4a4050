//! The HTTP request that a call came by, as it travels in an [`Invoke`](crate::worker::Invoke).
//!
//! It stays the bytes that it travels as: whoever passes it on copies nothing, and a function that does not look at it costs
//! nothing to tell.
//!
//! | field | |
//! |---|---|
//! | method | name |
//! | path | text: begins with `/`; below the place where the function is mounted, if it is |
//! | query | text: without its `?`, as it was sent |
//! | headers | u16, how many; then each: name, value text |

use std::fmt;

use boki_log::LogError;
use boki_log::codec::{Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// An HTTP request without its body.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpHead(Bytes);

impl HttpHead {
    /// Puts one down: `method` in capitals, `path` and `query` as they were sent, the headers' names in lower case. At most
    /// 65,535 headers are taken.
    pub fn new<'h>(
        method: &str,
        path: &str,
        query: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    ) -> HttpHead {
        let mut out = BytesMut::with_capacity(512);
        out.put_short_str(method);
        out.put_long_bytes(path.as_bytes());
        out.put_long_bytes(query.as_bytes());
        let at = out.len();
        out.put_u16_le(0);
        let mut count = 0_u16;
        for (name, value) in headers.into_iter().take(usize::from(u16::MAX)) {
            out.put_short_str(name);
            out.put_long_bytes(value.as_bytes());
            count += 1;
        }
        out[at..at + 2].copy_from_slice(&count.to_le_bytes());
        HttpHead(out.freeze())
    }

    /// Takes one off the front.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<HttpHead, LogError> {
        let mut ahead = Reader::at(reader.whole(), reader.offset());
        ahead.short_str()?;
        ahead.long_str()?;
        ahead.long_str()?;
        for _ in 0..ahead.u16()? {
            ahead.short_str()?;
            ahead.long_str()?;
        }
        reader.bytes(ahead.offset() - reader.offset()).map(HttpHead)
    }

    /// As it travels.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// In capitals: `GET`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.fields().map_or("", |fields| fields.0)
    }

    /// Percent-encoded, as it was sent. A function that is mounted sees what lies below the mount.
    #[must_use]
    pub fn path(&self) -> &str {
        self.fields().map_or("", |fields| fields.1)
    }

    /// Without its `?`, as it was sent; may be empty.
    #[must_use]
    pub fn query(&self) -> &str {
        self.fields().map_or("", |fields| fields.2)
    }

    /// Names and values, in the order in which they came; the names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let (mut reader, count) = self.fields().map_or((None, 0), |fields| (Some(fields.3), fields.4));
        (0..count).map_while(move |_| {
            let reader = reader.as_mut()?;
            Some((reader.short_str().ok()?, reader.long_str().ok()?))
        })
    }

    /// The values of the header `name`, which is in lower case.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.headers().filter(move |(header, _)| *header == name).map(|(_, value)| value)
    }

    /// The first value of the header `name`, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(header, _)| *header == name).map(|(_, value)| value)
    }

    /// Method, path, query, the headers and how many they are. There is no head that has not got them.
    fn fields(&self) -> Option<(&str, &str, &str, Reader<'_>, u16)> {
        let mut reader = Reader::new(&self.0);
        let (method, path, query) = (reader.short_str().ok()?, reader.long_str().ok()?, reader.long_str().ok()?);
        let count = reader.u16().ok()?;
        Some((method, path, query, reader, count))
    }
}

impl fmt::Debug for HttpHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}?{} ", self.method(), self.path(), self.query())?;
        f.debug_map().entries(self.headers()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_down_is_read_back() {
        let headers = [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")];
        let head = HttpHead::new("POST", "/seats/4", "row=7", headers);
        assert_eq!((head.method(), head.path(), head.query()), ("POST", "/seats/4", "row=7"));
        assert_eq!(head.headers().collect::<Vec<_>>(), headers);
        assert_eq!(head.all("cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!((head.header("accept"), head.header("host")), (Some("*/*"), None));
    }

    #[test]
    fn it_ends_where_the_next_field_begins_and_never_before_it_is_whole() {
        let head = HttpHead::new("GET", "/", "", [("a", "b")]);
        let mut bytes = head.as_bytes().to_vec();
        for len in 0..bytes.len() {
            assert!(HttpHead::read(&mut Reader::new(&Bytes::copy_from_slice(&bytes[..len]))).is_err());
        }
        bytes.push(9);
        let bytes = Bytes::from(bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(HttpHead::read(&mut reader).unwrap(), head);
        assert_eq!(reader.rest(), Bytes::from_static(&[9]));
    }
}
