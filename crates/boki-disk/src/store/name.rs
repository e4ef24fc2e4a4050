//! Names of blobs that are stored piece by piece.

use std::fmt;
use std::str::FromStr;

/// Names a blob. What the parts stand for is the caller's; a name is given to one blob ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName {
    /// Whose it is: all blobs of an owner can be removed at once.
    pub owner: u64,
    /// What of the owner's it belongs to.
    pub item: u128,
    /// Which part of that.
    pub part: u8,
    /// Tells apart what was stored for the same part at different times.
    pub version: u64,
}

/// Bytes of a name as it enters a checksum.
const BYTES: usize = 33;

impl BlobName {
    pub(super) fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.owner.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.item.to_le_bytes());
        bytes[24] = self.part;
        bytes[25..].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }
}

/// The name of its file.
impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlobName { owner, item, part, version } = self;
        write!(f, "{owner:016x}-{item:032x}-{part:02x}-{version:016x}")
    }
}

/// A text that is not the name of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a blob")]
pub struct InvalidBlobName;

impl FromStr for BlobName {
    type Err = InvalidBlobName;

    fn from_str(text: &str) -> Result<BlobName, InvalidBlobName> {
        let mut parts = text.split('-');
        let mut part = || parts.next().unwrap_or_default();
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| InvalidBlobName);
        let name = BlobName {
            owner: number(part())?,
            item: u128::from_str_radix(part(), 16).map_err(|_| InvalidBlobName)?,
            part: u8::from_str_radix(part(), 16).map_err(|_| InvalidBlobName)?,
            version: number(part())?,
        };
        // One way to write it: else two files could have the same name.
        if name.to_string() == text { Ok(name) } else { Err(InvalidBlobName) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_one() {
        let name = BlobName { owner: 7, item: u128::MAX - 1, part: 2, version: u64::MAX };
        let text = name.to_string();
        assert_eq!(text, "0000000000000007-fffffffffffffffffffffffffffffffe-02-ffffffffffffffff");
        assert_eq!(text.parse(), Ok(name));
        for other in ["", "lost+found", &text[1..], &format!("{text}.tmp"), &format!("{text}-"), &text.to_uppercase()] {
            assert_eq!(other.parse::<BlobName>(), Err(InvalidBlobName), "{other}");
        }
    }
}
