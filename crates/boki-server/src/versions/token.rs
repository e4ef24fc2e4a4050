//! The token that whoever deploys must have: deploying runs code on the server's machine.
//!
//! It is made at the first start and lies in the data directory, readable by the server's user only, so that commands of
//! that user find it by themselves.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use super::error::DeployError;

/// Its file in the data directory.
pub const TOKEN_FILE: &str = "deploy-token";
const TOKEN_BYTES: usize = 32;

/// What a token is compared with. The token itself is not kept.
pub(crate) struct Token(blake3::Hash);

impl Token {
    /// The token of this data directory, which is made if it is not there.
    pub(crate) fn open(data: &Path) -> io::Result<Token> {
        let path = data.join(TOKEN_FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(data, &path)?,
            read => read?,
        };
        let text = text.trim();
        if text.is_empty() {
            let reason = "it is empty; remove it, and the next start makes another";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Token(blake3::hash(text.as_bytes())))
    }

    /// That `authorization`, a request's header, has the token.
    pub(crate) fn check(&self, authorization: Option<&str>) -> Result<(), DeployError> {
        let Some(authorization) = authorization else {
            return Err(DeployError::Unauthorized("a token is needed to deploy"));
        };
        let given = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, given)) = given else {
            return Err(DeployError::Unauthorized("the header Authorization must be \"Bearer TOKEN\""));
        };
        // Hashes are compared in constant time, and how long that of a guess takes says nothing about the token.
        if blake3::hash(given.trim().as_bytes()) == self.0 {
            Ok(())
        } else {
            Err(DeployError::Unauthorized("the token is not this server's"))
        }
    }
}

/// Written beside and renamed, so that after a crash there is a whole token or none.
fn make(data: &Path, path: &Path) -> io::Result<String> {
    let mut random = [0; TOKEN_BYTES];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let beside = data.join(format!("{TOKEN_FILE}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(text)
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(TOKEN_FILE);
        Token::open(data.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 2 * TOKEN_BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = Token::open(data.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let right = text.trim();
        assert!(token.check(Some(&format!("Bearer {right}"))).is_ok());
        let almost = format!("Bearer {}", &right[1..]);
        for wrong in [None, Some(""), Some(right), Some("Bearer "), Some("Basic x"), Some(almost.as_str())] {
            assert!(matches!(token.check(wrong), Err(DeployError::Unauthorized(_))), "{wrong:?}");
        }
        // One that an operator wrote counts; an empty one is no token.
        std::fs::write(&path, "chosen\n").unwrap();
        assert!(Token::open(data.path()).unwrap().check(Some("bearer chosen")).is_ok());
        std::fs::write(&path, "\n").unwrap();
        assert!(Token::open(data.path()).is_err());
    }
}
