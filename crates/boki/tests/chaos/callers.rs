//! Those who behave, and what they are owed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use boki_sdk::Client;
use fastrand::Rng;
use hyper::StatusCode;
use parking_lot::Mutex;

use crate::bad_worker::BAD_FUNCTIONS;
use crate::good_worker::{answer_to, effect_tag};
use crate::http::{Answer, HttpClient};

/// What a call may end with besides its result: its workers were lost, or it took too long.
const HONEST_ENDS: [&str; 3] = ["BK0403", "BK0404", "BK0402"];

/// How calls ended.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub(crate) fn count(&self, what: impl Into<String>) {
        *self.0.lock().entry(what.into()).or_default() += 1;
    }

    fn of(&self, what: &str) -> u64 {
        self.0.lock().get(what).copied().unwrap_or_default()
    }

    /// A run in which nothing went wrong shows nothing.
    pub(crate) fn assert_that_everything_happened(&self) {
        for what in ["call answered", "send done", "call BK0404"] {
            assert!(self.of(what) > 0, "not once {what:?}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock();
        let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// A call that a send has put on record.
#[derive(Debug)]
pub(crate) struct Accepted {
    id: String,
    number: u64,
    has_effect: bool,
}

fn pick(rng: &mut Rng) -> &'static str {
    match rng.u32(0..1000) {
        0 => "crash",
        1..=3 => "hang",
        4..=13 => "block",
        14..=33 => "chatty",
        34..=133 => "nested",
        134..=433 => "effect",
        _ => "work",
    }
}

/// Makes `requests` requests, each with a number of its own from `name` on. Returns what was accepted.
pub(crate) async fn run_caller(
    address: String,
    name: u64,
    seed: u64,
    requests: u64,
    tally: Arc<Tally>,
) -> Vec<Accepted> {
    let mut rng = Rng::with_seed(seed ^ name);
    let mut client = HttpClient::connect(&address).await;
    let mut accepted = Vec::new();
    for number in name..name + requests {
        let function = pick(&mut rng);
        let input = number.to_string();
        if rng.u32(0..4) == 0 {
            let answer = client.ask("POST", &format!("/send/{function}"), &[], &input).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
            let id = answer.json()["call"].as_str().unwrap().to_owned();
            accepted.push(Accepted { id, number, has_effect: matches!(function, "effect" | "crash" | "hang") });
        } else {
            let key = format!("key-{number}");
            let keyed = rng.bool();
            let headers = [("boki-timeout", "2s"), ("idempotency-key", &*key)];
            let headers = if keyed { &headers[..] } else { &headers[..1] };
            match client.try_ask("POST", &format!("/call/{function}"), headers, &input).await {
                Ok(answer) => {
                    judge(&answer, number, "call", &tally);
                }
                // An output that had begun came from a bad worker, and it never ends as if it were whole.
                Err(error) if !keyed && BAD_FUNCTIONS.contains(&function) => {
                    assert!(error.is_incomplete_message() || error.is_body_write_aborted(), "{error:?}");
                    tally.count("call cut off");
                    client = HttpClient::connect(&address).await;
                }
                Err(error) => panic!("{function} {number}: {error:?}"),
            }
        }
    }
    accepted
}

fn judge(answer: &Answer, number: u64, what: &str, tally: &Tally) -> bool {
    if answer.status == StatusCode::OK {
        assert_eq!(answer.json(), answer_to(number), "the answer to another call");
        tally.count(format!("{what} answered"));
        return true;
    }
    let code = answer.code();
    assert!(HONEST_ENDS.contains(&&*code), "{what} {number} ended with {code}: {answer:?}");
    tally.count(format!("{what} {code}"));
    false
}

/// Every accepted call ends, and what it did was done once.
pub(crate) async fn check_sends(address: &str, sends: Vec<Accepted>, tally: &Tally) {
    let mut http = HttpClient::connect(address).await;
    let native = Client::connect(address).await.unwrap();
    let book = native.book("default").await.unwrap();
    for send in sends {
        let answer = http.ask("GET", &format!("/v1/calls/{}/result?wait=60s", send.id), &[], "").await;
        assert_ne!(answer.status, StatusCode::ACCEPTED, "a send that never ends: {send:?}");
        let gone = answer.status == StatusCode::NOT_FOUND && answer.code() == "BK0409";
        if gone {
            // It ended, and so long ago that its record is not kept.
            tally.count("send forgotten");
        } else {
            let returned = judge(&answer, send.number, "send", tally);
            tally.count("send done");
            if returned && send.has_effect {
                let records = book.read_next(1).tag(effect_tag(send.number)).await.unwrap();
                assert_eq!(records.len(), 1, "{send:?}");
            }
        }
    }
    book.trim().below(book.tail().await.unwrap()).await.unwrap();
    native.close();
}
