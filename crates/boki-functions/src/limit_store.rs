//! The limits that were set while the engine ran, kept in the log: one entry of the catalog that holds all of them.
//!
//! In force are the limits of the configuration and the stored ones; of the same name, the stored one, until it is
//! removed. So what was set by hand in need outlives a restart, and what is configured comes back when that is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use boki_log::error::Retry;
use boki_log::{LogError, Seq};
use boki_wire::error::details_of;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::dispatch::InForce;
use crate::functions::Shared;
use crate::limits::{InvalidLimit, LimitRule, Rate};

/// The entry of the catalog.
const ENTRY: &str = "limits";
/// Of what is stored.
const VERSION: u32 = 1;
/// Most limits that may be stored.
const MAX_LIMITS: usize = 1000;

/// A limit in writing, as in `boki.toml` and over HTTP, but for its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitTerms {
    /// Of which functions: `call:checkout`, `call:report-*`, `call:*`.
    #[serde(rename = "match")]
    pub matches: String,
    /// Only of calls whose limit key is such: `acme`, `acme/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Each limit key is counted by itself.
    #[serde(default)]
    pub per_key: bool,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many may begin in a time: `100/s`, `5/m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// How many of these may begin at once after a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The share among those that wait for the same places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
}

impl LimitTerms {
    /// The limit that this is.
    ///
    /// # Errors
    /// [`InvalidLimit`].
    pub fn rule(&self, name: &str) -> Result<LimitRule, InvalidLimit> {
        let invalid = |field| move |reason| InvalidLimit { field, reason };
        let rate = match (&self.rate, self.burst) {
            (None, None) => None,
            (None, Some(_)) => return Err(InvalidLimit { field: "burst", reason: "only a rate has a burst" }),
            (Some(rate), None) => Some(rate.parse::<Rate>().map_err(invalid("rate"))?),
            (Some(rate), Some(burst)) => {
                let rate = rate.parse::<Rate>().map_err(invalid("rate"))?;
                Some(rate.with_burst(burst).map_err(invalid("burst"))?)
            }
        };
        let rule = LimitRule {
            name: name.into(),
            matches: self.matches.parse().map_err(invalid("match"))?,
            key: self.key.as_deref().map(str::parse).transpose().map_err(invalid("key"))?,
            per_key: self.per_key,
            concurrency: self.concurrency,
            rate,
            weight: self.weight,
            queue: self.queue,
        };
        rule.check()?;
        Ok(rule)
    }
}

impl From<&LimitRule> for LimitTerms {
    fn from(rule: &LimitRule) -> LimitTerms {
        LimitTerms {
            matches: rule.matches.to_string(),
            key: rule.key.as_ref().map(ToString::to_string),
            per_key: rule.per_key,
            concurrency: rule.concurrency,
            rate: rule.rate.as_ref().map(ToString::to_string),
            burst: rule.rate.as_ref().map(Rate::burst),
            weight: rule.weight,
            queue: rule.queue,
        }
    }
}

/// What is stored: one limit, and the name that it goes by.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    limits: BTreeMap<String, LimitTerms>,
}

/// Why a limit was not set or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// It makes no sense.
    #[error("limit {name:?} cannot be: {invalid}")]
    Invalid {
        /// What it was to be called.
        name: Arc<str>,
        /// What is wrong with it.
        invalid: InvalidLimit,
    },
    /// There is none of that name.
    #[error("there is no limit {name:?}")]
    NotFound {
        /// The name.
        name: Arc<str>,
    },
    /// It is one of the configuration.
    #[error("limit {name:?} is set in boki.toml, and can only be removed there")]
    Configured {
        /// The name.
        name: Arc<str>,
    },
    /// There are as many as there may be.
    #[error("there are {limit} limits already, which is as many as there may be")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// The log could not be written or read.
    #[error("the record of the limits: {0}")]
    Log(#[from] LogError),
}

impl LimitError {
    /// Every code of this type, each with a page in `docs/errors/`.
    pub const CODES: &[&str] = &["BK0440", "BK0441", "BK0442", "BK0443"];

    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            LimitError::Invalid { .. } => "BK0440",
            LimitError::NotFound { .. } => "BK0441",
            LimitError::Configured { .. } => "BK0442",
            LimitError::TooMany { .. } => "BK0443",
            LimitError::Log(error) => error.code(),
        }
    }

    /// Whether the same may be tried again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            LimitError::Log(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    /// The error's own fields, by name.
    #[must_use]
    pub fn details(&self) -> Map<String, Value> {
        let fields = match self {
            LimitError::Invalid { name, invalid } => {
                json!({ "field": invalid.field, "limit": &**name, "reason": invalid.reason })
            }
            LimitError::NotFound { name } | LimitError::Configured { name } => json!({ "limit": &**name }),
            LimitError::TooMany { limit } => json!({ "most": limit }),
            LimitError::Log(error) => return details_of(error),
        };
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// The stored limits, as this engine knows them.
#[derive(Debug, Default)]
pub(crate) struct LimitStore {
    /// Of the entry that was read or written last.
    seq: Seq,
    rules: BTreeMap<Arc<str>, Arc<LimitRule>>,
}

impl Shared {
    /// Reads the stored limits and puts them into force.
    pub(crate) async fn load_limits(&self) -> Result<(), LogError> {
        let mut store = self.limits.lock().await;
        *store = self.read_limits().await?;
        self.enforce(&store);
        Ok(())
    }

    async fn read_limits(&self) -> Result<LimitStore, LogError> {
        let found = self.node.entries(ENTRY).await?.into_iter().find(|entry| entry.name == ENTRY);
        let Some(entry) = found else { return Ok(LimitStore::default()) };
        let malformed = |_| LogError::Malformed { reason: "the stored limits cannot be read" };
        let stored: Stored = serde_json::from_slice(&entry.value).map_err(malformed)?;
        if stored.version != VERSION {
            return Err(LogError::Malformed { reason: "the stored limits have an unknown version" });
        }
        let mut rules = BTreeMap::new();
        for (name, terms) in stored.limits {
            match terms.rule(&name) {
                Ok(rule) => {
                    rules.insert(Arc::clone(&rule.name), Arc::new(rule));
                }
                Err(error) => {
                    tracing::error!(limit = name, %error, "a stored limit cannot be understood, and is not in force")
                }
            }
        }
        Ok(LimitStore { seq: entry.seq, rules })
    }

    /// Puts what is stored and what is configured into force.
    pub(crate) fn enforce(&self, store: &LimitStore) {
        let stored = store.rules.values().map(|limit| InForce { limit: Arc::clone(limit), is_stored: true });
        let configured = self.config.limits.iter().filter(|rule| !store.rules.contains_key(&rule.name));
        let configured = configured.map(|limit| InForce { limit: Arc::new(limit.clone()), is_stored: false });
        self.set_limits(stored.chain(configured).collect());
    }

    /// Sets a limit, new or in place of that of its name. It is on record and in force when this returns.
    pub(crate) async fn set_limit(&self, rule: LimitRule) -> Result<(), LimitError> {
        let name = Arc::clone(&rule.name);
        rule.check().map_err(|invalid| LimitError::Invalid { name: Arc::clone(&name), invalid })?;
        let rule = Arc::new(rule);
        self.change_limits(|rules| {
            if rules.len() >= MAX_LIMITS && !rules.contains_key(&name) {
                return Err(LimitError::TooMany { limit: MAX_LIMITS });
            }
            rules.insert(Arc::clone(&name), Arc::clone(&rule));
            Ok(())
        })
        .await
    }

    /// Removes a stored limit.
    pub(crate) async fn remove_limit(&self, name: &str) -> Result<(), LimitError> {
        self.change_limits(|rules| match rules.remove(name) {
            Some(_) => Ok(()),
            None if self.config.limits.iter().any(|rule| *rule.name == *name) => {
                Err(LimitError::Configured { name: name.into() })
            }
            None => Err(LimitError::NotFound { name: name.into() }),
        })
        .await
    }

    async fn change_limits(
        &self,
        change: impl Fn(&mut BTreeMap<Arc<str>, Arc<LimitRule>>) -> Result<(), LimitError>,
    ) -> Result<(), LimitError> {
        // Held while it is written: changes come one after another, and what is in force is what was written last.
        let mut store = self.limits.lock().await;
        let mut rules = store.rules.clone();
        change(&mut rules)?;
        let limits = rules.iter().map(|(name, rule)| (name.to_string(), LimitTerms::from(&**rule))).collect();
        let value = serde_json::to_vec(&Stored { version: VERSION, limits })
            .map_err(|_| LogError::Malformed { reason: "the limits cannot be written" })?;
        match self.node.set_entry(ENTRY, store.seq, value.into()).await {
            Ok(seq) => *store = LimitStore { seq, rules },
            Err(error) => {
                // Whatever is there now: this engine goes by it.
                if let Ok(found) = self.read_limits().await {
                    *store = found;
                    self.enforce(&store);
                }
                return Err(error.into());
            }
        }
        self.enforce(&store);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reads_as_it_was_written() {
        let terms = LimitTerms {
            matches: "call:report-*".into(),
            key: Some("acme/*".into()),
            per_key: true,
            concurrency: Some(3),
            rate: Some("5/m".into()),
            burst: Some(2),
            weight: Some(7),
            queue: Some(0),
        };
        let rule = terms.rule("reports").unwrap();
        assert_eq!(LimitTerms::from(&rule), terms);
        let json = serde_json::to_value(&terms).unwrap();
        assert_eq!(json["match"], "call:report-*");
        assert_eq!(serde_json::from_value::<LimitTerms>(json).unwrap(), terms);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = LimitTerms { matches: "call:*".into(), concurrency: Some(1), ..LimitTerms::default() };
        let field = |terms: LimitTerms| terms.rule("a").unwrap_err().field;
        assert_eq!(field(LimitTerms { matches: String::new(), ..good.clone() }), "match");
        assert_eq!(field(LimitTerms { rate: Some("fast".into()), ..good.clone() }), "rate");
        assert_eq!(field(LimitTerms { burst: Some(1), ..good.clone() }), "burst");
        assert_eq!(field(LimitTerms { rate: Some("1/s".into()), burst: Some(0), ..good.clone() }), "burst");
        assert_eq!(field(LimitTerms { key: Some(String::new()), ..good.clone() }), "key");
        assert_eq!(field(LimitTerms { concurrency: Some(0), ..good }), "concurrency");
    }
}
