//! `boki limits`: what limits calls, and setting it.

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::{LimitsCommand, SetLimit, Target};
use crate::failure::Failure;
use crate::http::{Http, nothing, whole_body};
use crate::output::{Output, aligned};

/// What is shown of a limit. The rest is for programs, and is printed as it came.
#[derive(Deserialize)]
struct Shown {
    name: String,
    source: String,
    limit: Map<String, Value>,
    running: u64,
    waiting: u64,
    throttled: u64,
    #[serde(default)]
    keys: Vec<ShownKey>,
}

#[derive(Deserialize)]
struct ShownKey {
    key: Option<String>,
    running: u64,
    waiting: u64,
}

pub(crate) async fn run(command: LimitsCommand, out: Output) -> Result<(), Failure> {
    match command {
        LimitsCommand::Ls { target, keys } => list(&target, keys, out).await,
        LimitsCommand::Set(args) => set(*args, out).await,
        LimitsCommand::Rm { target, name } => remove(&target, &name, out).await,
    }
}

async fn list(target: &Target, with_keys: bool, mut out: Output) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        limits: Vec<Value>,
    }
    let answer: Answer = Http::connect(target).await?.json(Method::GET, "/v1/limits", &[], nothing()).await?;
    if out.is_json() {
        for limit in &answer.limits {
            out.json(limit)?;
        }
        return out.finish();
    }
    let mut rows = Vec::new();
    for limit in answer.limits {
        let Ok(limit) = serde_json::from_value::<Shown>(limit) else { continue };
        let terms = terms_of(&limit.limit);
        let counts = [limit.running, limit.waiting, limit.throttled].map(|count| count.to_string());
        rows.push([vec![limit.name], counts.to_vec(), vec![limit.source, terms]].concat());
        for key in limit.keys.iter().filter(|_| with_keys) {
            let name = key.key.as_deref().map_or("  (no key)".to_owned(), |key| format!("  {key}"));
            rows.push(vec![name, key.running.to_string(), key.waiting.to_string()]);
        }
    }
    out.line(&aligned(&["NAME", "RUNNING", "WAITING", "THROTTLED", "SOURCE", "LIMIT"], &rows))?;
    out.finish()
}

/// What a limit says, as `boki limits set` takes it.
fn terms_of(limit: &Map<String, Value>) -> String {
    let mut terms = Vec::new();
    if let Some(matches) = limit.get("match").and_then(Value::as_str) {
        terms.push(matches.to_owned());
    }
    for name in ["key", "per_key", "concurrency", "rate", "burst", "weight", "queue"] {
        match limit.get(name) {
            None | Some(Value::Bool(false) | Value::Null) => {}
            Some(Value::Bool(true)) => terms.push(format!("--{}", name.replace('_', "-"))),
            Some(Value::String(text)) => terms.push(format!("--{name} {text}")),
            Some(value) => terms.push(format!("--{name} {value}")),
        }
    }
    terms.join(" ")
}

async fn set(args: SetLimit, mut out: Output) -> Result<(), Failure> {
    let SetLimit { target, name, matches, key, per_key, concurrency, rate, burst, weight, queue } = args;
    let mut terms = json!({ "match": matches, "per_key": per_key });
    let optional: [(&str, Option<Value>); 6] = [
        ("key", key.map(Value::from)),
        ("concurrency", concurrency.map(Value::from)),
        ("rate", rate.map(Value::from)),
        ("burst", burst.map(Value::from)),
        ("weight", weight.map(Value::from)),
        ("queue", queue.map(Value::from)),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            terms[field] = value;
        }
    }
    let (path, body) = (path_of(&name)?, whole_body(terms.to_string().into()));
    let headers = [("content-type", "application/json")];
    let limit: Value = Http::connect(&target).await?.json(Method::PUT, &path, &headers, body).await?;
    out.either(&limit, || format!("limit {name} is in force"))?;
    out.finish()
}

async fn remove(target: &Target, name: &str, mut out: Output) -> Result<(), Failure> {
    Http::connect(target).await?.send(Method::DELETE, &path_of(name)?, &[], nothing()).await?;
    out.either(&json!({ "name": name, "removed": true }), || format!("removed {name}"))?;
    out.finish()
}

fn path_of(name: &str) -> Result<String, Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        let what = format!("{name:?} is not the name of a limit, which has letters, digits, '_', '-' and '.'");
        return Err(Failure::input(what, "boki limits ls"));
    }
    Ok(format!("/v1/limits/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shown_as_it_can_be_set() {
        let limit = json!({ "match": "call:*", "per_key": true, "concurrency": 5, "rate": "10/s", "burst": 10 });
        let Value::Object(limit) = limit else { panic!() };
        assert_eq!(terms_of(&limit), "call:* --per-key --concurrency 5 --rate 10/s --burst 10");
    }
}
