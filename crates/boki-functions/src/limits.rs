//! Limits: how much of which calls may run at once, begin in a time, and wait. This file says what a limit is; the
//! table (`dispatch`) is what holds calls to it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Longest name of a limit, and longest pattern, in bytes.
const MAX_TEXT_BYTES: usize = 255;
/// What a pattern of calls begins with.
const CALL: &str = "call:";
/// The finest rate: one in a microsecond.
const MAX_PER_SECOND: u128 = 1_000_000;
const MAX_BURST: u32 = 1_000_000;
/// The largest weight.
pub const MAX_WEIGHT: u32 = 1000;

/// A limit. It holds for every call that it matches; a call is held to all limits that match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// What it is called; of those with the same name, there is one.
    pub name: Arc<str>,
    /// Of which functions: `call:checkout`, `call:report-*`, `call:*`.
    pub matches: Pattern,
    /// Only of calls whose limit key is such.
    pub key: Option<Pattern>,
    /// Each limit key is counted by itself; else all are counted together.
    pub per_key: bool,
    /// How many may run at once.
    pub concurrency: Option<u32>,
    /// How many may begin in a time.
    pub rate: Option<Rate>,
    /// The share of each key it matches among the keys of a function; of each function it matches, if it asks for no
    /// key. 1 unless set.
    pub weight: Option<u32>,
    /// How many may wait.
    pub queue: Option<u32>,
}

/// A limit and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The limit.
    pub limit: Arc<LimitRule>,
    /// It was set while the engine ran; else it is one of the configuration.
    pub is_stored: bool,
    /// Calls it matches that run: attempts that were given up count until their worker has answered.
    pub running: u64,
    /// Calls it matches that wait, for whatever.
    pub waiting: u64,
    /// Calls that found it used up when they came, since the start.
    pub throttled: u64,
    /// How many may begin at once now; `None`: it has no rate, or one for each key.
    pub tokens: Option<u32>,
    /// If keys are counted by themselves: those with the most that waits and runs.
    pub keys: Vec<KeyState>,
}

/// How much of a limit one key uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The key; `None`: calls without one.
    pub key: Option<Arc<str>>,
    /// Its calls that run.
    pub running: u64,
    /// Its calls that wait.
    pub waiting: u64,
    /// How many may begin at once now; `None`: there is no rate.
    pub tokens: Option<u32>,
}

/// What is wrong with a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidLimit {
    /// Which of its fields.
    pub field: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl LimitRule {
    /// One that limits nothing as yet.
    #[must_use]
    pub fn new(name: &str, matches: Pattern) -> LimitRule {
        LimitRule {
            name: name.into(),
            matches,
            key: None,
            per_key: false,
            concurrency: None,
            rate: None,
            weight: None,
            queue: None,
        }
    }

    /// That it makes sense.
    ///
    /// # Errors
    /// [`InvalidLimit`].
    pub fn check(&self) -> Result<(), InvalidLimit> {
        let invalid = |field, reason| Err(InvalidLimit { field, reason });
        let names = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if self.name.is_empty() || self.name.len() > MAX_TEXT_BYTES || !self.name.chars().all(names) {
            return invalid("name", "it has 1 to 255 letters, digits, '_', '-' and '.'");
        }
        if !self.matches.0.starts_with(CALL) || self.matches.0.len() == CALL.len() {
            return invalid(
                "match",
                "it begins with \"call:\" and goes on with a function's name, in which * is any text",
            );
        }
        if self.concurrency == Some(0) {
            return invalid("concurrency", "it is at least 1");
        }
        if self.weight.is_some_and(|weight| weight == 0 || weight > MAX_WEIGHT) {
            return invalid("weight", "it is 1 to 1000");
        }
        if self.concurrency.is_none() && self.rate.is_none() && self.weight.is_none() && self.queue.is_none() {
            return invalid("concurrency", "a limit sets at least one of concurrency, rate, weight and queue");
        }
        Ok(())
    }

    /// Whether calls are told apart by their key.
    pub(crate) fn asks_for_key(&self) -> bool {
        self.per_key || self.key.is_some()
    }

    pub(crate) fn matches_function(&self, function: &str) -> bool {
        self.matches.0.strip_prefix(CALL).is_some_and(|pattern| is_match(pattern, function))
    }

    pub(crate) fn matches_key(&self, key: Option<&str>) -> bool {
        self.key.as_ref().is_none_or(|pattern| pattern.matches(key.unwrap_or_default()))
    }
}

/// A text in which `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Whether the whole of `text` is such.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        is_match(&self.0, text)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Pattern, &'static str> {
        if text.is_empty() || text.len() > MAX_TEXT_BYTES {
            return Err("a pattern has 1 to 255 bytes");
        }
        Ok(Pattern(text.into()))
    }
}

/// What lies before the first `*` comes first, what lies behind the last comes last, and what lies between is found from
/// the left: if it can be found at all, it can be found there.
fn is_match(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_suffix(last) else { return false };
    for piece in between.split('*').filter(|piece| !piece.is_empty()) {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    true
}

/// So many in a time, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per: Duration,
    burst: u32,
}

impl Rate {
    /// `count` in the time `per`; `burst` of them may begin at once when none did for a while.
    ///
    /// # Errors
    /// Why there is no such rate.
    pub fn new(count: u32, per: Duration, burst: u32) -> Result<Rate, &'static str> {
        if count == 0 || per.is_zero() || u128::from(count) * 1_000_000_000 > MAX_PER_SECOND * per.as_nanos() {
            return Err("a rate is at least one in a time, and at most a million a second");
        }
        if per.subsec_nanos() != 0 || per > Duration::from_secs(366 * 24 * 3600) {
            return Err("the time of a rate is whole seconds, at most a year");
        }
        if burst == 0 || burst > MAX_BURST {
            return Err("a burst is 1 to 1000000");
        }
        Ok(Rate { count, per, burst })
    }

    /// With another burst.
    ///
    /// # Errors
    /// Why there is no such rate.
    pub fn with_burst(self, burst: u32) -> Result<Rate, &'static str> {
        Rate::new(self.count, self.per, burst)
    }

    /// How many may begin at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Time in which one more may begin. Rounded up: never too many.
    pub(crate) fn interval(&self) -> Duration {
        let nanos = self.per.as_nanos().div_ceil(u128::from(self.count));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];

/// `100/s`, `5/m`; the burst is not told.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().rev().find(|(_, seconds)| self.per == Duration::from_secs(*seconds)) {
            Some((unit, _)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{}/{}s", self.count, self.per.as_secs()),
        }
    }
}

/// `100/s`, `5/m`, `1000/h`, `20/d`, `3/10s`. The burst is what comes in a second, at least 1.
impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Rate, &'static str> {
        const FORM: &str = "a rate is a number, a slash and a time, such as 100/s, 5/m or 3/10s";
        let (count, time) = text.trim().split_once('/').ok_or(FORM)?;
        let count: u32 = count.trim().parse().map_err(|_| FORM)?;
        let time = time.trim();
        let digits = time.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
        let (number, unit) = time.split_at(digits);
        let number: u64 = if number.is_empty() { 1 } else { number.parse().map_err(|_| FORM)? };
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(FORM)?;
        let per = Duration::from_secs(number.saturating_mul(*seconds));
        let in_a_second = u64::from(count) / per.as_secs().max(1);
        let burst = u32::try_from(in_a_second).unwrap_or(MAX_BURST).clamp(1, MAX_BURST);
        Rate::new(count, per, burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        let yes =
            [("a", "a"), ("*", ""), ("*", "abc"), ("a*", "a"), ("a*c", "abc"), ("*b*", "abc"), ("a*b*c", "aXbYbc")];
        for (pattern, text) in yes {
            assert!(is_match(pattern, text), "{pattern} {text}");
        }
        let no =
            [("a", "ab"), ("a*", "ba"), ("*a", "ab"), ("ab*ba", "aba"), ("*b*", "ac"), ("a*b*c", "acb"), ("", "a")];
        for (pattern, text) in no {
            assert!(!is_match(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_rate_is_read_and_printed() {
        for (text, interval_ms, burst) in
            [("100/s", 10, 100), ("5/m", 12_000, 1), ("3600/h", 1000, 1), ("3/10s", 3334, 1), ("1/d", 86_400_000, 1)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.interval().as_micros().div_ceil(1000), rate.burst()), (interval_ms, burst), "{text}");
            let again: Rate = rate.to_string().parse().unwrap();
            assert_eq!(again, rate);
        }
        for text in ["", "5", "/s", "x/s", "5/", "5/x", "0/s", "5/0s", "2000000/s", "1/400d", "-1/s", "1/s/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert!("5/s".parse::<Rate>().unwrap().with_burst(0).is_err());
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused() {
        let limit = LimitRule { concurrency: Some(1), ..LimitRule::new("a", "call:*".parse().unwrap()) };
        limit.check().unwrap();
        let refused = [
            ("name", LimitRule { name: "".into(), ..limit.clone() }),
            ("name", LimitRule { name: "a b".into(), ..limit.clone() }),
            ("match", LimitRule { matches: "checkout".parse().unwrap(), ..limit.clone() }),
            ("match", LimitRule { matches: "call:".parse().unwrap(), ..limit.clone() }),
            ("concurrency", LimitRule { concurrency: Some(0), ..limit.clone() }),
            ("concurrency", LimitRule { concurrency: None, ..limit.clone() }),
            ("weight", LimitRule { weight: Some(1001), ..limit }),
        ];
        for (field, limit) in refused {
            assert_eq!(limit.check().unwrap_err().field, field, "{limit:?}");
        }
    }
}
