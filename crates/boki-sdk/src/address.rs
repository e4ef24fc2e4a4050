//! Where a server is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;

/// A server's address: `127.0.0.1:2654`, `unix:/path/to/boki.sock`, or as the URL of its HTTP side, whose port
/// is the same, `http://127.0.0.1:2654`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The port where none is given.
const DEFAULT_PORT: &str = "2654";

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let invalid = |reason| Error::InvalidAddress { address: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///run/boki.sock`, as a URL, is `/run/boki.sock`.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(invalid("the path is missing")) } else { Ok(Address::Unix(path.into())) };
        }
        if text.starts_with("https://") {
            return Err(invalid("TLS is not supported"));
        }
        let host = ["http://", "tcp://", "boki://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let host = host.strip_suffix('/').unwrap_or(host);
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(invalid("host:port or unix:/path is expected"));
        }
        let port = host.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        match port {
            Some((_, port)) if port.parse::<u16>().is_err() => Err(invalid("the port is not a number below 65536")),
            Some(_) => Ok(Address::Tcp(host.to_owned())),
            None if host.contains(':') && !host.starts_with('[') => {
                Ok(Address::Tcp(format!("[{host}]:{DEFAULT_PORT}")))
            }
            None => Ok(Address::Tcp(format!("{host}:{DEFAULT_PORT}"))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host) => f.write_str(host),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_several_forms() {
        for (text, expected) in [
            ("127.0.0.1:2654", "127.0.0.1:2654"),
            ("http://localhost:80/", "localhost:80"),
            ("localhost", "localhost:2654"),
            ("[::1]:99", "[::1]:99"),
            ("[::1]", "[::1]:2654"),
            ("::1", "[::1]:2654"),
            ("unix:/run/boki.sock", "unix:/run/boki.sock"),
            ("unix:///run/boki.sock", "unix:/run/boki.sock"),
            ("unix:boki.sock", "unix:boki.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected);
        }
        for text in ["", "unix:", "host:port", "host:99999", "https://host", "http://host/path", "a b"] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.code(), "BK0611", "{text}");
        }
    }
}
