//! What a case expects of a value: a pattern in JSON.
//!
//! A pattern is a value that must be the same, with these exceptions: an object may have more fields than its pattern;
//! `"*"` is anything; `{"between": [a, b]}` is a number from `a` to `b`; and `"$name"` is anything the first time, and
//! from then on the same as it was then. In what a case *sends*, `"$name"` stands for that value.

use std::collections::BTreeMap;

use serde_json::Value;

/// The values that a case has named so far.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, Value>);

impl Names {
    /// Whether `actual` is what `pattern` expects; else which part is not.
    pub(crate) fn check(&mut self, pattern: &Value, actual: &Value) -> Result<(), String> {
        self.check_at("", pattern, actual)
    }

    fn check_at(&mut self, at: &str, pattern: &Value, actual: &Value) -> Result<(), String> {
        let differs = |expected: &Value| Err(format!("expected {at}{expected}, got {actual}"));
        match pattern {
            Value::String(text) if text == "*" => Ok(()),
            Value::String(text) if text.starts_with('$') => match self.0.get(text) {
                Some(known) if known == actual => Ok(()),
                Some(known) => Err(format!("expected {at}{known} again ({text}), got {actual}")),
                None => {
                    self.0.insert(text.clone(), actual.clone());
                    Ok(())
                }
            },
            Value::Object(fields) if fields.len() == 1 && fields.contains_key("between") => {
                let bound = |index: usize| fields["between"].get(index).and_then(Value::as_f64);
                let within = matches!((bound(0), bound(1), actual.as_f64()), (Some(least), Some(most), Some(actual))
                    if least <= actual && actual <= most);
                if within { Ok(()) } else { differs(pattern) }
            }
            Value::Object(fields) => {
                for (name, pattern) in fields {
                    let Some(actual) = actual.get(name) else {
                        return Err(format!("expected {at}{name}: {pattern}, which is not there: {actual}"));
                    };
                    self.check_at(&format!("{at}{name}: "), pattern, actual)?;
                }
                Ok(())
            }
            Value::Array(patterns) => match actual.as_array() {
                Some(items) if items.len() == patterns.len() => {
                    let pairs = patterns.iter().zip(items).enumerate();
                    for (index, (pattern, item)) in pairs {
                        self.check_at(&format!("{at}[{index}] "), pattern, item)?;
                    }
                    Ok(())
                }
                _ => differs(pattern),
            },
            other => {
                if other == actual {
                    Ok(())
                } else {
                    differs(other)
                }
            }
        }
    }

    /// `value` with every name in it replaced by what it stands for.
    pub(crate) fn fill(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) if text.starts_with('$') => {
                self.0.get(text).cloned().ok_or_else(|| format!("the case names {text} before it is known"))?
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                // A name may also stand for a field's number, such as a seq.
                let fill = |(name, value): (&String, &Value)| Ok((name.clone(), self.fill(value)?));
                Value::Object(fields.iter().map(fill).collect::<Result<_, String>>()?)
            }
            other => other.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pattern_says_which_part_differs() {
        let mut names = Names::default();
        assert_eq!(names.check(&json!({"a": [1, "*"]}), &json!({"a": [1, 2], "b": 3})), Ok(()));
        let differs = names.check(&json!({"a": [1, 2]}), &json!({"a": [1, 3]}));
        assert_eq!(differs, Err("expected a: [1] 2, got 3".to_owned()));
        assert!(names.check(&json!({"a": 1}), &json!({})).is_err());
        assert!(names.check(&json!([1]), &json!([1, 2])).is_err());
        assert!(names.check(&json!({"between": [1, 5]}), &json!(5)).is_ok());
        assert!(names.check(&json!({"between": [1, 5]}), &json!(6)).is_err());
    }

    #[test]
    fn a_name_is_bound_once_and_stands_for_its_value_after_that() {
        let mut names = Names::default();
        assert!(names.fill(&json!("$seq")).is_err());
        names.check(&json!({"seq": "$seq"}), &json!({"seq": 7})).unwrap();
        assert_eq!(names.fill(&json!({"from": ["$seq", "x"]})), Ok(json!({"from": [7, "x"]})));
        assert!(names.check(&json!("$seq"), &json!(8)).is_err());
    }
}
