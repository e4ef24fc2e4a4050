//! Running the cases, and what came of each.

use std::collections::BTreeSet;

use crate::cases::{Cases, OPTIONAL_FUNCTIONS};
use crate::{link, server};

/// What is to be run.
#[derive(Debug, Default)]
pub struct Settings {
    /// The worker's command and its arguments.
    pub command: Vec<String>,
    /// Only cases whose name contains this.
    pub only: Option<String>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// What was expected, and what came instead.
    Failed(String),
    /// The worker does not offer this function, which it need not.
    Skipped(String),
}

/// A case, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// Runs the cases one after the other; `tell` hears of each when it has ended.
///
/// # Errors
/// Nothing could be run at all: the worker does not start, or does not register.
pub async fn run(
    cases: &Cases,
    settings: &Settings,
    mut tell: impl FnMut(&CaseReport),
) -> Result<Vec<CaseReport>, String> {
    let offered = link::functions(&settings.command).await?;
    let is_wanted = |name: &str| settings.only.as_deref().is_none_or(|only| name.contains(only));
    let mut reports = Vec::new();
    let mut note = |name: &str, outcome: Outcome| {
        let report = CaseReport { name: name.to_owned(), outcome };
        tell(&report);
        reports.push(report);
    };
    for case in cases.link.iter().filter(|case| is_wanted(&case.name)) {
        let outcome = match missing(case.functions(), &offered) {
            Some(outcome) => outcome,
            None => outcome(Box::pin(link::run(case, &settings.command)).await),
        };
        note(&case.name, outcome);
    }
    for case in cases.server.iter().filter(|case| is_wanted(&case.name)) {
        let outcome = match missing(case.functions(), &offered) {
            Some(outcome) => outcome,
            None => outcome(Box::pin(server::run(case, &settings.command)).await),
        };
        note(&case.name, outcome);
    }
    Ok(reports)
}

fn outcome(result: Result<(), String>) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

/// What becomes of a case if the worker does not offer all that it calls.
fn missing<'a>(functions: impl Iterator<Item = &'a str>, offered: &BTreeSet<String>) -> Option<Outcome> {
    let function = functions.into_iter().find(|function| !offered.contains(*function))?;
    Some(if OPTIONAL_FUNCTIONS.contains(&function) {
        Outcome::Skipped(function.to_owned())
    } else {
        Outcome::Failed(format!("the worker does not offer {function:?}, which every worker under test has to"))
    })
}
