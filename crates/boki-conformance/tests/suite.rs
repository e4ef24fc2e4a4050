//! The suite itself: the reference worker passes all of it, and a worker that breaks a rule does not.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use boki_conformance::{CaseReport, Cases, Outcome, Settings, run};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn python(file: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = vec!["python3".to_owned(), file.to_str().unwrap().to_owned()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command
}

/// Runs the cases whose name contains `only` on the reference worker with one rule broken.
async fn with_broken(rule: &str, only: &str) -> Vec<CaseReport> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken.py");
    let settings = Settings { command: python(&file, &[rule]), only: Some(only.to_owned()) };
    let reports = Box::pin(run(&Cases::load().unwrap(), &settings, |_| {})).await.unwrap();
    assert!(!reports.is_empty(), "there is no case {only:?}");
    reports
}

async fn notices(rule: &str, only: &str, why: &str) {
    let sound = with_broken("none", only).await;
    assert!(sound.iter().all(|report| report.outcome == Outcome::Passed), "{sound:?}");
    let broken = with_broken(rule, only).await;
    let [CaseReport { outcome: Outcome::Failed(text), .. }] = broken.as_slice() else { panic!("{rule}: {broken:?}") };
    assert!(text.contains(why), "{rule}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_worker_passes_every_case() {
    let command = python(&root().join("conformance/reference.py"), &[]);
    let settings = Settings { command, only: None };
    let reports = Box::pin(run(&Cases::load().unwrap(), &settings, |_| {})).await.unwrap();
    let others: Vec<&CaseReport> = reports.iter().filter(|report| report.outcome != Outcome::Passed).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_breaks_a_rule_is_told_which() {
    notices("answers_twice", "frames_may_arrive_together", "answered twice").await;
    notices("answers_under_another_number", "nothing_comes_back_as_nothing", "no Invoke").await;
    notices("sends_unknown_flags", "nothing_comes_back_as_nothing", "does not read").await;
    notices("forgets_the_position", "an_append_goes_to", "expected the position 91").await;
    notices("goes_back_to_an_older_position", "the_position_never_goes_back", "expected the position 500").await;
    notices("takes_no_notice_of_credit", "an_output_waits_for_credit", "than it had credit for").await;
    notices("names_no_parent", "a_call_of_another_function", "parent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_optional_is_skipped_and_what_is_not_is_missed() {
    let skipped = with_broken("offers_no_streams", "a_small_output_needs_no_credit").await;
    assert_eq!(skipped[0].outcome, Outcome::Skipped("stream_out".to_owned()));
    let failed = with_broken("offers_too_little", "the_position_never_goes_back").await;
    assert!(matches!(&failed[0].outcome, Outcome::Failed(why) if why.contains("tail")), "{failed:?}");
}

#[tokio::test]
async fn a_command_that_is_no_worker_is_an_error_of_its_own() {
    let settings = Settings { command: vec!["/no/such/program".to_owned()], only: None };
    let error = Box::pin(run(&Cases::load().unwrap(), &settings, |_| {})).await.unwrap_err();
    assert!(error.contains("cannot be started"), "{error}");
}
