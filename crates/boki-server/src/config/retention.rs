//! `[[retention]]`: what is kept of books, as `boki.toml` has it.

use boki_log::LogError;
use boki_log::retention::{Keep, Rule, Scope, check};
use boki_node::ConfiguredRule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, Size, Span};

/// What is kept of books for which nothing else was set. Whichever bound is reached first lets the oldest records go; without
/// any rule everything is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionSection {
    /// Of which books: "orders", "log-*", "*". The closest name counts.
    pub book: String,
    /// Only of records under this tag; "sensor/*": under each tag that begins so, each tag by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Records younger than this are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// The newest so many are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_records: Option<u64>,
    /// The newest whose tags and payloads have so many bytes together are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,
}

impl RetentionSection {
    /// The rule that this is.
    ///
    /// # Errors
    /// [`LogError::InvalidTag`], [`LogError::ReservedTag`].
    pub fn rule(&self) -> Result<ConfiguredRule, LogError> {
        let age_us = self.max_age.map(|age| u64::try_from(age.0.as_micros()).unwrap_or(u64::MAX));
        let keep = Keep { age_us, records: self.max_records, bytes: self.max_bytes.map(|size| size.0) };
        let rule = Rule { scope: Scope::parse(self.tag.as_deref())?, keep };
        Ok(ConfiguredRule { books: self.book.clone(), rule })
    }
}

impl Config {
    /// The rules for books, which have been checked.
    #[must_use]
    pub fn retention_rules(&self) -> Vec<ConfiguredRule> {
        self.retention.iter().filter_map(|section| section.rule().ok()).collect()
    }

    /// That the rules make sense.
    pub(super) fn check_retention(&self) -> Result<(), ConfigError> {
        let mut rules: Vec<ConfiguredRule> = Vec::new();
        for section in &self.retention {
            let wrong = |key: &str, reason: &str| {
                Err(ConfigError::value(&format!("retention.{key}"), &format!("{reason} (book {:?})", section.book)))
            };
            if section.book.is_empty() || section.book.starts_with('~') {
                return wrong("book", "it must be the name of books, such as orders, log-* or *");
            }
            let rule = match section.rule() {
                Ok(rule) => rule,
                Err(error) => return wrong("tag", &error.to_string()),
            };
            if let Err((_, reason)) = check(std::slice::from_ref(&rule.rule)) {
                return wrong("max_age", reason);
            }
            if rules.iter().any(|other| other.books == rule.books && other.rule.scope == rule.rule.scope) {
                return wrong("book", "there are two rules for the same records");
            }
            rules.push(rule);
        }
        Ok(())
    }
}
