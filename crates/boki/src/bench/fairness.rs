//! Two customers of one function: how long the calls of one take alone, and beside the backlog of the other.
//!
//! The function has few places and takes a while, so that what is measured is who waits for whom. The backlog's calls
//! take times of their own (seeded, so the same in every run): places then come free one by one, as they do in earnest.

use boki_sdk::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::http::{HttpConnection, request};
use super::latency::broken;
use super::loads::Exchange;
use super::target::{ServerUnderTest, Workers};
use super::worker::WORK;
use super::workloads::Loads;
use crate::failure::Failure;
use crate::remote::of_server;

pub(crate) const ALONE: &str = "call of a function with 8 places that takes 20 ms";
pub(crate) const BESIDE: &str = "the same, beside the backlog of another limit key";

/// Places of the function's worker.
pub(crate) const PLACES: u32 = 8;
/// How long a measured call takes its function, in milliseconds.
const MILLIS: u64 = 20;
/// How long a call of the backlog takes its function, in milliseconds.
const OTHERS_MILLIS: std::ops::Range<u64> = 10..30;
/// Sends under way at once.
const SENDS: u32 = 256;
const SEED: u64 = 7;

impl Loads<'_> {
    /// Measures both.
    pub(super) async fn fairness(&mut self, backlog: u32) -> Result<(), Failure> {
        let server = ServerUnderTest::prepare(self.options(), Workers::Busy).await?;
        let headers = "boki-limit-key: b\r\ncontent-type: text/plain\r\n";
        let call = request("POST", &format!("/call/{WORK}"), server.address(), headers, MILLIS.to_string().as_bytes());
        let mut connection = HttpConnection::open(server.address()).await?;
        // The first call waits until the worker has started.
        connection.exchange(&call).await?;
        let client = |connection| vec![Exchange { connection, request: call.clone() }];
        let connections = [HttpConnection::open(server.address()).await?, connection];
        let [alone, beside] = connections;
        self.figure(ALONE, server.cpu()?, client(alone)).await?;
        self.note(&format!("{backlog} sends for the backlog"));
        send(server.address(), backlog).await?;
        self.figure(BESIDE, server.cpu()?, client(beside)).await?;
        if waiting(server.address()).await? == 0 {
            return Err(broken("the backlog came to its end while it was measured beside it; make it larger"));
        }
        Ok(())
    }
}

/// Puts so many calls on record, for the other limit key.
async fn send(address: &str, count: u32) -> Result<(), Failure> {
    let client = Client::connect(address).await.map_err(|error| of_server(&error, None))?;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut sends = JoinSet::new();
    for number in 0..count {
        if number >= SENDS {
            sent(&mut sends).await?;
        }
        let call = client.call(WORK, bytes::Bytes::from(random.u64(OTHERS_MILLIS).to_string())).limit_key("a");
        sends.spawn(async move { call.detach().await.map(|_| ()) });
    }
    while !sends.is_empty() {
        sent(&mut sends).await?;
    }
    Ok(())
}

async fn sent(sends: &mut JoinSet<boki_sdk::Result<()>>) -> Result<(), Failure> {
    match sends.join_next().await {
        None => Ok(()),
        Some(Ok(result)) => result.map_err(|error| of_server(&error, None)),
        Some(Err(error)) => Err(broken(format!("a send ended: {error}"))),
    }
}

/// How many calls of the function wait.
async fn waiting(address: &str) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        functions: Vec<Value>,
    }
    let mut connection = HttpConnection::open(address).await?;
    let list = request("GET", "/v1/functions", address, "", b"");
    let answer = connection.exchange_with(&list, |body| serde_json::from_slice::<Answer>(body)).await?;
    let answer = answer.map_err(|error| broken(format!("the list of functions cannot be read: {error}")))?;
    let work = answer.functions.iter().find(|function| function["name"] == WORK);
    Ok(work.and_then(|function| function["queued"].as_u64()).unwrap_or(0))
}
