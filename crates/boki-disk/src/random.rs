//! Random bytes of the operating system's.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// `N` bytes that nobody can foresee.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "the kernel gives so many whole") };
    let mut bytes = [0; N];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if got == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
