//! A data key: 32 secret bytes, the texts it may be written as, and what may be known of it.

use std::fmt;
use std::io;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::random;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// Sets these uses of the key apart from all others.
const CHECK_CONTEXT: &str = "boki 2026-11 data key: check value";
const SEAL_CONTEXT: &str = "boki 2026-11 data key: sealing";

/// A key that files of a data directory are sealed with.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; KEY_BYTES]);

/// What may be known of a key, so that it is known again: it does not tell the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyCheck(pub(crate) [u8; KeyCheck::BYTES]);

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a data key is {KEY_BYTES} random bytes, written as {} hexadecimal digits or in base64", 2 * KEY_BYTES)]
pub struct InvalidDataKey;

impl DataKey {
    /// A new key, from the system's random numbers.
    ///
    /// # Errors
    /// If the system has none.
    pub fn generate() -> io::Result<DataKey> {
        random::bytes().map(DataKey)
    }

    /// These bytes as a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> DataKey {
        DataKey(bytes)
    }

    /// The key as text: hexadecimal. It is the secret itself.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What may be known of it.
    #[must_use]
    pub fn check(&self) -> KeyCheck {
        let mut check = [0; KeyCheck::BYTES];
        check.copy_from_slice(&blake3::derive_key(CHECK_CONTEXT, &self.0)[..KeyCheck::BYTES]);
        KeyCheck(check)
    }

    /// The key that seals under one salt.
    pub(super) fn derive(&self, salt: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(SEAL_CONTEXT);
        hasher.update(&self.0);
        hasher.update(salt);
        *hasher.finalize().as_bytes()
    }
}

impl FromStr for DataKey {
    type Err = InvalidDataKey;

    fn from_str(text: &str) -> Result<DataKey, InvalidDataKey> {
        let text = text.trim();
        let bytes = if text.len() == 2 * KEY_BYTES && text.is_ascii() {
            let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16);
            if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(InvalidDataKey);
            }
            (0..KEY_BYTES).map(|index| digits(2 * index)).collect::<Result<Vec<u8>, _>>().ok()
        } else {
            [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
                .iter()
                .find_map(|engine| engine.decode(text).ok())
        };
        bytes.and_then(|bytes| bytes.try_into().ok()).map(DataKey).ok_or(InvalidDataKey)
    }
}

/// Never the key itself.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.check())
    }
}

impl KeyCheck {
    /// Bytes of it.
    pub const BYTES: usize = 16;

    /// What a sealed unit says of its key.
    pub(crate) fn id(&self) -> KeyId {
        KeyId(u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]))
    }
}

/// The key's number, as messages name it.
impl fmt::Display for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

impl fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyCheck({self})")
    }
}

/// A short name of a key: the first bytes of its check value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_in_hexadecimal_or_base64_and_as_nothing_else() {
        let key = DataKey([0xfb; KEY_BYTES]);
        let hex = "fb".repeat(KEY_BYTES);
        assert_eq!(key.reveal(), hex);
        let base64 = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=";
        let url = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s";
        for text in [&hex, &hex.to_uppercase(), &format!(" {hex}\n"), base64, &base64[..43], url] {
            assert_eq!(text.parse(), Ok(key.clone()), "{text}");
        }
        for text in ["", "secret", &hex[1..], &format!("{hex}00"), &hex.replacen("fb", "+b", 1), &base64[1..]] {
            assert_eq!(text.parse::<DataKey>(), Err(InvalidDataKey), "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_a_key_is_not_the_key() {
        let key = DataKey([0xab; KEY_BYTES]);
        assert!(!format!("{key:?} {:?}", key.check()).contains("abab"));
        assert_ne!(key.check(), DataKey([0xac; KEY_BYTES]).check());
        assert_ne!(DataKey::generate().unwrap(), DataKey::generate().unwrap());
    }
}
