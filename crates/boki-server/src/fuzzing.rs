//! What is private, for the fuzz targets in `fuzz/`.

use std::io;
use std::path::Path;

use crate::versions::package::{self, Bounds, UnpackError};

/// Unpacks a package into the folder `into`, which is empty, if it keeps to so many bytes and files.
///
/// # Errors
/// Why it was refused, or what the disk said.
pub fn unpack(package: &[u8], into: &Path, bytes: u64, files: u32) -> io::Result<()> {
    package::unpack(package, into, Bounds { bytes, files }).map(|_| ()).map_err(|error| match error {
        UnpackError::Refused(reason) => io::Error::other(reason),
        UnpackError::Io(error) => error,
    })
}
