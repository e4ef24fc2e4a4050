//! `[[limit]]`: limits on calls, as `boki.toml` has them.

use boki_functions::{InvalidLimit, LimitRule, LimitTerms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// A limit on calls: how many run at once, begin in a time, and wait. A call is held to all limits that match it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSection {
    /// Its name; each limit has its own.
    pub name: String,
    /// Calls of which functions: "call:checkout", "call:report-*", "call:*".
    pub r#match: String,
    /// Only calls whose limit key is such: "acme", "acme/*".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Count each limit key by itself; else all calls are counted together.
    #[serde(default)]
    pub per_key: bool,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many may begin in a time: "100/s", "5/m", "3/10s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// How many of these may begin at once after a pause; as many as come in a second unless set, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The share of each key it matches among the keys of a function; without `key` and `per_key`, of each function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many may wait before further ones are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
}

impl LimitSection {
    /// The limit that this is.
    ///
    /// # Errors
    /// [`InvalidLimit`].
    pub fn rule(&self) -> Result<LimitRule, InvalidLimit> {
        let terms = LimitTerms {
            matches: self.r#match.clone(),
            key: self.key.clone(),
            per_key: self.per_key,
            concurrency: self.concurrency,
            rate: self.rate.clone(),
            burst: self.burst,
            weight: self.weight,
            queue: self.queue,
        };
        terms.rule(&self.name)
    }
}

impl Config {
    /// That the limits make sense.
    pub(super) fn check_limits(&self) -> Result<(), ConfigError> {
        for (at, limit) in self.limit.iter().enumerate() {
            if let Err(error) = limit.rule() {
                let reason = format!("{} (limit {:?})", error.reason, limit.name);
                return Err(ConfigError::value(&format!("limit.{}", error.field), &reason));
            }
            if self.limit.iter().take(at).any(|other| other.name == limit.name) {
                return Err(ConfigError::value("limit.name", &format!("two limits are called {:?}", limit.name)));
            }
        }
        Ok(())
    }
}
