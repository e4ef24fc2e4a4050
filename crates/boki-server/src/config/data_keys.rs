//! The keys of an encrypted data directory. They are secrets, so no file of settings and no option holds them, and nothing shows
//! them: they come in environment variables, or in files that those name.

use boki_node::{DataKey, DataKeys};

use super::ConfigError;

/// The key that new files are sealed with.
const KEY: &str = "BOKI_DATA_KEY";
/// Keys that were used before, separated by commas.
const OLD: &str = "BOKI_DATA_KEY_OLD";
/// What a variable ends with that names a file instead.
const FILE: &str = "_FILE";

/// The keys in these variables; `None` if there are none.
pub(super) fn from_env(variables: &[(String, String)]) -> Result<Option<DataKeys>, ConfigError> {
    let current = read(variables, KEY)?;
    let old = read(variables, OLD)?;
    match (current, old) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(refuse(OLD, format!("an old key alone opens nothing: {KEY} must be set too"))),
        (Some((name, current)), old) => {
            let (old_name, old) = old.unwrap_or_default();
            let current = parse(&name, &current)?;
            let old = old.split([',', '\n']).map(str::trim).filter(|text| !text.is_empty());
            let old = old.map(|text| parse(&old_name, text)).collect::<Result<_, _>>()?;
            Ok(Some(DataKeys { current, old }))
        }
    }
}

/// The text of a variable or of the file that its sister names, and which it was.
fn read(variables: &[(String, String)], variable: &str) -> Result<Option<(String, String)>, ConfigError> {
    let get = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let by_file = format!("{variable}{FILE}");
    match (get(variable), get(&by_file)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(refuse(variable, format!("{by_file} is set too: only one of them can be"))),
        (Some(text), None) => Ok(Some((variable.to_owned(), text))),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((format!("{by_file} ({path})"), text))),
            Err(error) => Err(refuse(&by_file, format!("cannot read {path}: {error}"))),
        },
    }
}

fn parse(variable: &str, text: &str) -> Result<DataKey, ConfigError> {
    text.parse().map_err(|error: boki_node::InvalidDataKey| refuse(variable, error.to_string()))
}

fn refuse(variable: &str, reason: String) -> ConfigError {
    ConfigError::DataKey { variable: variable.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(variables: &[(&str, &str)]) -> Result<Option<DataKeys>, ConfigError> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        from_env(&variables)
    }

    #[test]
    fn keys_come_from_variables_or_files() {
        let (one, two, three) = ("01".repeat(32), "02".repeat(32), "03".repeat(32));
        let key = |text: &str| text.parse::<DataKey>().unwrap();
        assert_eq!(keys(&[("PATH", "/bin")]).unwrap(), None);
        let found = keys(&[(KEY, &one), (OLD, &format!("{two}, {three},"))]).unwrap().unwrap();
        assert_eq!((found.current, found.old), (key(&one), vec![key(&two), key(&three)]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{one}\n")).unwrap();
        let found = keys(&[("BOKI_DATA_KEY_FILE", path.to_str().unwrap())]).unwrap().unwrap();
        assert_eq!((found.current, found.old), (key(&one), vec![]));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let one = "01".repeat(32);
        for variables in [
            &[(KEY, "hunter2")][..],
            &[(KEY, "")],
            &[(OLD, &one)],
            &[(KEY, &one), (OLD, "hunter2")],
            &[(KEY, &one), ("BOKI_DATA_KEY_FILE", "/key")],
            &[("BOKI_DATA_KEY_FILE", "/there/is/no/such/file")],
        ] {
            let error = keys(variables).unwrap_err();
            assert_eq!(error.code(), "BK0333");
            assert!(
                error.to_string().starts_with("BOKI_DATA_KEY") && !error.to_string().contains("hunter2"),
                "{error}"
            );
            assert!(!error.to_string().contains(&one));
        }
    }
}
