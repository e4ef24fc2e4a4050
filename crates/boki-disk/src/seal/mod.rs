//! Encryption: how bytes are sealed on their way to the disk, and opened on their way back. Pure, but for the random numbers.
//!
//! Everything that is encrypted is a **unit**: a frame's body, a blob, a piece of one, a block of a table.
//!
//! | bytes | field of a unit |
//! |---|---|
//! | 4 | id of the key, big-endian |
//! | 16 | salt: random, drawn whenever a program opens the data directory |
//! | 8 | counter, big-endian: grows by one with every unit sealed under the salt |
//! | – | the bytes, encrypted with AES-256-GCM |
//! | 16 | tag of AES-256-GCM |
//!
//! The key of AES is derived from the data key and the salt (BLAKE3 in its key derivation mode), its nonce is four zero bytes and
//! the counter. So a nonce is used once under a key, whatever happens: the counter never goes back while the program runs, and
//! when it starts again, or a copy of the directory is opened elsewhere, the salt is another. Where a unit lies plays no part in
//! that, so a torn tail that is written over, with groups of the same numbers at the same offsets, uses up new nonces.
//!
//! Where a unit lies, and what it is, goes into the additional data: a unit that was moved, swapped or changed does not open.

mod blocks;
mod key;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

pub use blocks::SealedBlocks;
pub use key::{DataKey, InvalidDataKey, KeyCheck, KeyId};

use crate::random;

const SALT_BYTES: usize = 16;
const SALT_AT: usize = 4;
const COUNTER_AT: usize = SALT_AT + SALT_BYTES;
/// Bytes of a unit before what is encrypted.
pub(crate) const HEAD_BYTES: usize = COUNTER_AT + 8;
/// Bytes of a unit behind what is encrypted.
pub(crate) const TAG_BYTES: usize = 16;
/// By how much a unit is longer than what is in it.
pub const SEAL_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// Ciphers of earlier salts that are kept: one is made in less than a microsecond.
const KEPT_CIPHERS: usize = 64;

/// Why a unit does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not what was sealed there.
    #[error("it is not what was sealed at this place")]
    NotAuthentic,
    /// Its key is not among those that were given.
    #[error("it is sealed with the key {0}, which was not given")]
    NoKey(KeyId),
}

/// The keys that a data directory is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeys {
    /// Seals what is written.
    pub current: DataKey,
    /// Open what was sealed with them.
    pub old: Vec<DataKey>,
}

/// Seals with one key, and opens with all.
pub struct Keyring {
    keys: Vec<(KeyCheck, DataKey)>,
    /// Whether there may be plain files: the directory was not encrypted from its beginning.
    accepts_plain: bool,
    salt: [u8; SALT_BYTES],
    cipher: LessSafeKey,
    counter: AtomicU64,
    /// Those of other keys and salts, the one made last in front.
    ciphers: RwLock<VecDeque<Known>>,
}

/// A cipher that was made, and for what.
struct Known {
    key: KeyId,
    salt: [u8; SALT_BYTES],
    cipher: Arc<LessSafeKey>,
}

impl Keyring {
    /// A keyring of these keys, with a salt of its own. `accepts_plain`: what is not sealed is no damage.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(keys: &DataKeys, accepts_plain: bool) -> io::Result<Keyring> {
        Ok(Keyring::with_salt(keys, accepts_plain, random::bytes()?))
    }

    /// The same with a given salt. For tests of formats only: a salt that is used twice breaks the encryption.
    #[doc(hidden)]
    #[must_use]
    pub fn with_salt(keys: &DataKeys, accepts_plain: bool, salt: [u8; SALT_BYTES]) -> Keyring {
        let cipher = cipher(&keys.current, &salt);
        let keys = std::iter::once(&keys.current).chain(&keys.old).map(|key| (key.check(), key.clone())).collect();
        Keyring { keys, accepts_plain, salt, cipher, counter: AtomicU64::new(0), ciphers: RwLock::new(VecDeque::new()) }
    }

    /// Id of the key that seals.
    #[must_use]
    pub fn current(&self) -> KeyId {
        self.keys.first().map_or(KeyId(0), |(check, _)| check.id())
    }

    /// Whether there is a key of that id.
    #[must_use]
    pub fn has(&self, id: KeyId) -> bool {
        self.keys.iter().any(|(check, _)| check.id() == id)
    }

    /// Whether what is not sealed is no damage.
    #[must_use]
    pub fn accepts_plain(&self) -> bool {
        self.accepts_plain
    }

    /// Seals `unit` in place: its first [`HEAD_BYTES`] and its last [`TAG_BYTES`] are filled in, what is between is encrypted.
    pub(crate) fn seal(&self, aad: &[u8], unit: &mut [u8]) {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let (head, rest) = unit.split_at_mut(HEAD_BYTES);
        head[..SALT_AT].copy_from_slice(&self.current().0.to_be_bytes());
        head[SALT_AT..COUNTER_AT].copy_from_slice(&self.salt);
        head[COUNTER_AT..].copy_from_slice(&counter);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let sealed = self.cipher.seal_in_place_separate_tag(nonce(counter), Aad::from(aad), body);
        tag.copy_from_slice(sealed.expect("a unit is shorter than 64 GiB").as_ref());
    }

    /// `plain` as a unit.
    #[must_use]
    pub fn seal_copy(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut unit = vec![0; HEAD_BYTES];
        unit.reserve_exact(plain.len() + TAG_BYTES);
        unit.extend_from_slice(plain);
        unit.resize(plain.len() + SEAL_BYTES, 0);
        self.seal(aad, &mut unit);
        unit
    }

    /// Opens `unit` in place; what was sealed is then at [`HEAD_BYTES`] and of this length.
    ///
    /// # Errors
    /// [`SealError`]; `unit` is of no use then.
    pub(crate) fn open(&self, aad: &[u8], unit: &mut [u8]) -> Result<usize, SealError> {
        let (head, sealed) = unit.split_at_mut_checked(HEAD_BYTES).ok_or(SealError::NotAuthentic)?;
        let (id, salt, counter) = parts(head).ok_or(SealError::NotAuthentic)?;
        let mut open = |cipher: &LessSafeKey| {
            let opened = cipher.open_in_place(nonce(counter), Aad::from(aad), sealed);
            opened.map(|plain| plain.len()).map_err(|_| SealError::NotAuthentic)
        };
        if id == self.current() && salt == self.salt { open(&self.cipher) } else { open(&*self.cipher_of(id, salt)?) }
    }

    /// What was sealed in `unit`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open_copy(&self, aad: &[u8], unit: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut plain = unit.to_vec();
        let len = self.open(aad, &mut plain)?;
        plain.drain(..HEAD_BYTES);
        plain.truncate(len);
        Ok(plain)
    }

    fn cipher_of(&self, id: KeyId, salt: [u8; SALT_BYTES]) -> Result<Arc<LessSafeKey>, SealError> {
        if let Some(known) = self.ciphers.read().iter().find(|known| known.key == id && known.salt == salt) {
            return Ok(Arc::clone(&known.cipher));
        }
        let key = self.keys.iter().find(|(check, _)| check.id() == id).ok_or(SealError::NoKey(id))?;
        let made = Arc::new(cipher(&key.1, &salt));
        let mut ciphers = self.ciphers.write();
        ciphers.truncate(KEPT_CIPHERS - 1);
        ciphers.push_front(Known { key: id, salt, cipher: Arc::clone(&made) });
        Ok(made)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|(check, _)| check);
        f.debug_struct("Keyring").field("keys", &keys.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// Id of the key that a unit says it is sealed with.
pub(crate) fn key_of(unit: &[u8]) -> Option<KeyId> {
    unit.first_chunk().map(|id| KeyId(u32::from_be_bytes(*id)))
}

fn parts(head: &[u8]) -> Option<(KeyId, [u8; SALT_BYTES], [u8; 8])> {
    let salt = head.get(SALT_AT..COUNTER_AT)?.try_into().ok()?;
    Some((key_of(head)?, salt, head.get(COUNTER_AT..)?.try_into().ok()?))
}

fn cipher(key: &DataKey, salt: &[u8]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, &key.derive(salt)).expect("the key has the cipher's length");
    LessSafeKey::new(key)
}

fn nonce(counter: [u8; 8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::key::KEY_BYTES;

    fn key(byte: u8) -> DataKey {
        DataKey::from_bytes([byte; KEY_BYTES])
    }

    fn ring_of(current: u8, old: &[u8], salt: u8) -> Keyring {
        let keys = DataKeys { current: key(current), old: old.iter().copied().map(key).collect() };
        Keyring::with_salt(&keys, false, [salt; SALT_BYTES])
    }

    #[test]
    fn a_unit_opens_with_its_key_at_its_place_and_not_otherwise() {
        let ring = ring_of(1, &[], 9);
        let unit = ring.seal_copy(b"place", b"hello");
        assert_eq!(unit.len(), 5 + SEAL_BYTES);
        assert!(!unit.windows(5).any(|window| window == b"hello"));
        let later = ring_of(2, &[3, 1], 10);
        for ring in [&ring, &later, &later] {
            assert_eq!(ring.open_copy(b"place", &unit).unwrap(), b"hello");
            assert_eq!(ring.open_copy(b"elsewhere", &unit), Err(SealError::NotAuthentic));
        }
        assert_eq!(ring_of(2, &[], 9).open_copy(b"place", &unit), Err(SealError::NoKey(key(1).check().id())));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_unit_is_noticed() {
        let ring = ring_of(1, &[], 9);
        let unit = ring.seal_copy(b"", b"hello");
        for bit in 0..unit.len() * 8 {
            let mut unit = unit.clone();
            unit[bit / 8] ^= 1 << (bit % 8);
            assert!(ring.open_copy(b"", &unit).is_err(), "bit {bit}");
        }
        for len in 0..unit.len() {
            assert!(ring.open_copy(b"", &unit[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn no_two_units_have_a_nonce_in_common() {
        let (one, other) =
            (ring_of(1, &[], 9), Keyring::new(&DataKeys { current: key(1), old: vec![] }, false).unwrap());
        let mut heads: Vec<Vec<u8>> = Vec::new();
        for ring in [&one, &other] {
            heads.extend((0..100).map(|_| ring.seal_copy(b"", b"the same")[..HEAD_BYTES].to_vec()));
        }
        heads.sort_unstable();
        heads.dedup();
        assert_eq!(heads.len(), 200);
    }

    #[test]
    fn the_bytes_are_these() {
        let ring = ring_of(1, &[], 9);
        drop(ring.seal_copy(b"", b""));
        let unit = ring.seal_copy(b"place", b"hello");
        let hex: String = unit.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "9444bf4a090909090909090909090909090909090000000000000001d6c0ad0d146e194956cccc3f305fa6b8161ab9ad2b"
        );
    }
}
