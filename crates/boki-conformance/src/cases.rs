//! The cases, as they lie in `conformance/`, compiled in.

use serde::Deserialize;
use serde_json::Value;

use crate::link::LinkCase;
use crate::server::ServerCase;

/// What a worker may leave out: cases that need one of these are skipped if it is not offered.
pub const OPTIONAL_FUNCTIONS: &[&str] = &["stream_in", "stream_out", "http_echo"];

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        const FILES: &[(&str, &str)] = &[$((
            $name,
            include_str!(concat!("../../../conformance/", $name)),
        )),*];
    };
}

files!("link-basics.json", "link-calls.json", "link-faults.json", "link-streams.json", "server.json");

/// All cases.
#[derive(Debug, Default)]
pub struct Cases {
    /// Those in which the suite plays the server.
    pub link: Vec<LinkCase>,
    /// Those with a real server.
    pub server: Vec<ServerCase>,
}

/// A file of cases that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("conformance/{file}: {source}")]
pub struct CasesError {
    file: &'static str,
    source: serde_json::Error,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    /// For whoever reads the file.
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    link: Vec<LinkCase>,
    #[serde(default)]
    server: Vec<ServerCase>,
}

impl Cases {
    /// The cases that this build holds.
    ///
    /// # Errors
    /// [`CasesError`].
    pub fn load() -> Result<Cases, CasesError> {
        let mut cases = Cases::default();
        for (file, text) in FILES {
            let read: CaseFile = serde_json::from_str(text).map_err(|source| CasesError { file, source })?;
            cases.link.extend(read.link);
            cases.server.extend(read.server);
        }
        Ok(cases)
    }
}

/// Bytes as a case writes them: a text, hexadecimal digits, or one byte many times.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Data {
    Text(String),
    Hex { hex: String },
    Fill { fill: u8, bytes: usize },
    Json { json: Value },
}

impl Data {
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Data::Text(text) => Ok(text.clone().into_bytes()),
            Data::Fill { fill, bytes } => Ok(vec![*fill; *bytes]),
            Data::Json { json } => Ok(json.to_string().into_bytes()),
            Data::Hex { hex } => {
                let digits = hex.as_bytes().chunks(2);
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                digits.map(byte).collect::<Option<_>>().ok_or_else(|| format!("{hex:?} is not hexadecimal"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_reads_and_every_case_has_a_name_of_its_own() {
        let cases = Cases::load().unwrap();
        let names = cases.link.iter().map(|case| &case.name).chain(cases.server.iter().map(|case| &case.name));
        let names: Vec<&String> = names.collect();
        let distinct: BTreeSet<&&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.len() > 40, "{}", names.len());
    }

    #[test]
    fn data_is_text_digits_a_repeated_byte_or_json() {
        let bytes = |text: &str| serde_json::from_str::<Data>(text).unwrap().bytes();
        assert_eq!(bytes(r#""tea""#), Ok(b"tea".to_vec()));
        assert_eq!(bytes(r#"{"hex": "00ff"}"#), Ok(vec![0, 255]));
        assert_eq!(bytes(r#"{"fill": 7, "bytes": 3}"#), Ok(vec![7, 7, 7]));
        assert_eq!(bytes(r#"{"json": [1]}"#), Ok(b"[1]".to_vec()));
        assert!(bytes(r#"{"hex": "0g"}"#).is_err());
    }
}
