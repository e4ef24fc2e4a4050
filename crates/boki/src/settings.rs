//! Settings of a server on this machine: `boki.toml`, the environment, and the options of the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use boki_server::config::Durability;
use boki_server::{Config, ConfigError};

use crate::cli::{ConfigCommand, ConfigFile, DEFAULT_FILE};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// What the command line sets: it wins over everything else.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) durability: Option<Durability>,
    pub(crate) insecure: bool,
}

pub(crate) fn load(file: &ConfigFile, overrides: &Overrides) -> Result<Config, Failure> {
    let found = file.config.clone().or_else(|| Path::new(DEFAULT_FILE).exists().then(|| DEFAULT_FILE.into()));
    let options = as_variables(overrides)?;
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| options.iter().all(|(option, _)| !name.eq_ignore_ascii_case(option)));
    let all: Vec<_> = env.chain(options.iter().cloned()).collect();
    Config::load(found.as_deref(), all).map_err(|error| of_config(&error))
}

/// As environment variables, so that what they come to is checked together with everything else.
fn as_variables(overrides: &Overrides) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    let mut set = |key: &str, value: String| variables.push((format!("BOKI_SERVER__{key}"), value));
    if let Some(listen) = overrides.listen {
        set("LISTEN", listen.to_string());
    }
    if let Some(data) = &overrides.data {
        let text = data.to_str().ok_or_else(|| {
            Failure::input(format!("the path {} is not UTF-8", data.display()), "give --data another path")
        })?;
        // A JSON string is a TOML string: so no path is taken for a number.
        set("DATA", serde_json::Value::from(text).to_string());
    }
    if let Some(durability) = overrides.durability {
        set(
            "DURABILITY",
            match durability {
                Durability::Fsync => "fsync".to_owned(),
                Durability::Memory => "memory".to_owned(),
            },
        );
    }
    if overrides.insecure {
        set("INSECURE", "true".to_owned());
    }
    Ok(variables)
}

pub(crate) fn of_config(error: &ConfigError) -> Failure {
    Failure::new(error.code(), Exit::Usage, error.to_string(), error.next())
}

/// `boki config`.
pub(crate) fn run(command: &ConfigCommand, mut out: Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(file) => {
            load(file, &Overrides::default())?;
            let read = file.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
            let read = if read.exists() { read.display().to_string() } else { "defaults".to_owned() };
            out.either(&serde_json::json!({ "ok": true, "file": read }), || format!("{read}: fine"))?;
        }
        ConfigCommand::Schema => {
            let schema = serde_json::to_string_pretty(&Config::schema());
            out.line(&schema.map_err(|error| Failure::io("cannot print the schema", &error.into()))?)?;
        }
        ConfigCommand::Show(file) => {
            let config = load(file, &Overrides::default())?;
            if out.is_json() {
                out.json(&config)?;
            } else {
                let text = config.to_toml().map_err(|error| {
                    Failure::input(format!("a setting cannot be shown: {error}"), "boki --json config show")
                })?;
                out.line(text.trim_end())?;
            }
        }
    }
    out.finish()
}
