//! Which keys an encrypted data directory is sealed with. Without this file the directory is not encrypted.
//!
//! Body of the blob `keys`, which is the directory's own: flags (1 byte: 1 = there may be plain files, of before it was
//! encrypted), 3 bytes 0, then the check value of each key (16 bytes), first that of the one that new files are sealed with.

use std::path::Path;

use bytes::{Buf, Bytes};

use super::in_use::keys_in_use;
use crate::blob;
use crate::error::{BlobError, DirError};
use crate::seal::{DataKeys, KeyCheck, Keyring};
use crate::vfs::Vfs;

pub(super) const FILE: &str = "keys";

const ACCEPTS_PLAIN: u8 = 1;
const HEADER_BYTES: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    accepts_plain: bool,
    checks: Vec<KeyCheck>,
}

/// What is known of a directory when it is asked whether the keys are its own.
pub(super) struct Door<'a, V> {
    pub(super) vfs: &'a V,
    pub(super) path: &'a Path,
    pub(super) directory: u128,
    /// Nothing was ever written into it.
    pub(super) is_new: bool,
}

impl<V: Vfs> Door<'_, V> {
    /// The keyring of the directory, after it was made sure that every key that a file may need is there, and what is to be
    /// recorded before it is used; nothing if the directory is not encrypted. `encrypt`: one that is not is from now on.
    ///
    /// # Errors
    /// [`DirError`].
    pub(super) fn unlock(
        &self,
        keys: Option<&DataKeys>,
        encrypt: bool,
    ) -> Result<(Option<Keyring>, Option<Recorded>), DirError> {
        let path = || self.path.to_owned();
        let recorded = self.load().map_err(|source| DirError::Blob { path: path(), source })?;
        let (recorded, keys) = match (recorded, keys) {
            (None, None) => return Ok((None, None)),
            (Some(recorded), None) => {
                let key = recorded.checks[0].id();
                return Err(DirError::NoKey { path: path(), key });
            }
            (None, Some(_)) if !self.is_new && !encrypt => return Err(DirError::NotEncrypted { path: path() }),
            (None, Some(keys)) => (Recorded { accepts_plain: !self.is_new, checks: Vec::new() }, keys),
            (Some(recorded), Some(keys)) => (recorded, keys),
        };
        let current = keys.current.check();
        let given: Vec<KeyCheck> = keys.old.iter().map(|key| key.check()).chain([current]).collect();
        let mut known = recorded.checks.clone();
        if let Some(missing) = known.iter().copied().find(|check| !given.contains(check)) {
            // A key that no file needs any more may be lost.
            let in_use = keys_in_use(self.vfs, self.directory);
            known
                .retain(|check| given.contains(check) || in_use.as_ref().is_none_or(|used| used.contains(&check.id())));
            if let Some(missing) = known.iter().find(|check| !given.contains(check)) {
                return Err(DirError::NoKey { path: path(), key: missing.id() });
            }
            // Any key opens a directory without a sealed file: it must be one that was its own.
            if known.is_empty() {
                return Err(DirError::NoKey { path: path(), key: missing.id() });
            }
        }
        let others = known.into_iter().filter(|check| *check != current);
        let now = Recorded { checks: std::iter::once(current).chain(others).collect(), ..recorded };
        let failed = |source| DirError::Io { what: "get random numbers for", path: path(), source };
        let ring = Keyring::new(keys, now.accepts_plain).map_err(failed)?;
        Ok((Some(ring), (now != recorded).then_some(now)))
    }

    fn load(&self) -> Result<Option<Recorded>, BlobError> {
        let Some(body) = blob::read_owned(self.vfs, FILE, self.directory)? else { return Ok(None) };
        decode(body).map(Some).map_err(|what| BlobError::Damaged { name: FILE.to_owned(), what })
    }
}

impl Recorded {
    /// Writes the record, durably: before anything is sealed with a key that is new in it.
    pub(super) fn store<V: Vfs>(&self, vfs: &V, directory: u128) -> Result<(), BlobError> {
        let mut body = Vec::with_capacity(HEADER_BYTES + self.checks.len() * KeyCheck::BYTES);
        body.extend_from_slice(&[if self.accepts_plain { ACCEPTS_PLAIN } else { 0 }, 0, 0, 0]);
        for check in &self.checks {
            body.extend_from_slice(&check.0);
        }
        blob::write_owned(vfs, FILE, directory, &body)
    }
}

fn decode(mut body: Bytes) -> Result<Recorded, &'static str> {
    if body.len() <= HEADER_BYTES || !(body.len() - HEADER_BYTES).is_multiple_of(KeyCheck::BYTES) {
        return Err("it has an impossible length");
    }
    let flags = body.get_u32_le();
    if flags & !u32::from(ACCEPTS_PLAIN) != 0 {
        return Err("it has flags that are not known");
    }
    let mut checks = Vec::with_capacity(body.len() / KeyCheck::BYTES);
    while body.has_remaining() {
        let mut check = [0; KeyCheck::BYTES];
        body.copy_to_slice(&mut check);
        checks.push(KeyCheck(check));
    }
    Ok(Recorded { accepts_plain: flags != 0, checks })
}
