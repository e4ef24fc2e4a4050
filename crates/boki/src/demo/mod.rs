//! `boki demo`: a real application on a real server under real load, with `kill -9` twice, and an account of it.
//!
//! The application is the booking example. A server process (this same binary) runs it in a worker process. Clients
//! send HTTP requests, many for the same seats. On the way the worker is killed, then the server itself, which is
//! started again on its data. The clients know nothing of this; they repeat what was not answered, with the
//! same key. At the end the book is read and compared with every answer that was given. What is printed is
//! what was measured and checked; if a check fails, the demo fails.

mod account;
mod http;
mod load;
mod process;
mod verdict;

use std::fmt::Display;

use boki_sdk::{Book, Client};
use booking::audit::Audit;
use booking::search::{Found, Search};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::account::{Account, Load};
use self::http::HttpClient;
use self::load::{Answers, BOOK, Traveller, Work, call};
use self::process::ServerProcess;
use self::verdict::{Order, number};
use crate::cli::DemoArgs;
use crate::failure::{DEMO_BROKEN, Exit, Failure};
use crate::output::Output;
use crate::serve::StopSignals;

/// Runs the demo.
pub(crate) async fn run(args: DemoArgs, out: Output) -> Result<(), Failure> {
    // Before anything is started: what was started is ended when a signal comes.
    let mut stop = StopSignals::new()?;
    let home = tempfile::Builder::new().prefix("boki-demo-").tempdir();
    let home = home.map_err(|error| Failure::io("cannot make a folder for the demo", &error))?;
    let mut server = ServerProcess::start(home.path()).await.map_err(|error| failed("the server", error))?;
    let ended = tokio::select! {
        ended = Box::pin(story(&args, &mut server, Account::new(out))) => ended,
        () = stop.next() => if args.stay { Ok(()) } else { Err(failed("the demo", "it was interrupted")) },
    };
    let stopped = server.stop().await.map_err(|error| failed("ending the server", error));
    ended.and(stopped)
}

/// Runs the demo's functions; started by the demo's server.
pub(crate) fn run_worker() -> Result<(), Failure> {
    process::note_pid().map_err(|error| Failure::io("cannot note the process id", &error))?;
    booking::worker().run().map_err(|error| failed("the worker", error))
}

async fn story(args: &DemoArgs, server: &mut ServerProcess, mut account: Account) -> Result<(), Failure> {
    let requests = args.requests as usize;
    let (early, late) = (requests * 2 / 5, requests * 7 / 10);
    account.say(&format!(
        "\n  Booking trips: {} requests from {} clients, seed {}\n",
        number(requests),
        args.clients,
        args.seed
    ))?;

    let address = server.address.clone();
    first_answer(&address).await?;
    account.tell(format!(
        "server (process {}) and worker (process {}) are up",
        pid(server.pid()),
        pid(server.worker_pid())
    ))?;
    let client = Client::connect(&address).await.map_err(|error| failed("connecting", error))?;
    let book = client.book(BOOK).await.map_err(|error| failed("opening the book", error))?;

    let work = Work::new(requests);
    let mut travellers = JoinSet::new();
    let loaded = Instant::now();
    for number in 0..args.clients as usize {
        travellers.spawn(Traveller::new(number, args.seed, &address).travel(work.clone()));
    }

    work.reached(early).await;
    let killed = server.kill_worker().map_err(|error| failed("killing the worker", error))?;
    account.tell(format!("{} requests answered: kill -9 {killed}, the worker", number(early)))?;
    let pause = first_answer(&address).await?;
    account.tell(format!(
        "the server runs another (process {}); first answer {pause} after the kill",
        pid(server.worker_pid())
    ))?;

    work.reached(late).await;
    let before = verdict::read_order(&book).await.map_err(|error| failed("reading the book", error))?;
    let killed = server.kill().await.map_err(|error| failed("killing the server", error))?;
    account.tell(format!("{} requests answered: kill -9 {killed}, the server", number(late)))?;
    let away = Instant::now();
    server.start_again().await.map_err(|error| failed("starting the server again", error))?;
    let ready = millis(away);
    first_answer(&address).await?;
    account.tell(format!(
        "started again on the same data (process {}): up after {ready}, first answer after {}",
        pid(server.pid()),
        millis(away)
    ))?;

    let mut answers = Vec::new();
    while let Some(ended) = travellers.join_next().await {
        let ended = ended.map_err(|error| failed("a client", error))?;
        answers.push(ended.map_err(|why| broken(format!("a client got no answer: {why}")))?);
    }
    let took = loaded.elapsed();
    account.tell(format!("all {} requests answered", number(requests)))?;

    let times = answers.iter().flat_map(|answers| answers.times.iter().copied()).collect();
    let lost = answers.iter().map(|answers| answers.lost).sum();
    let asked_again = answers.iter().map(|answers| answers.asked_again).sum();
    account.load(Load::of(times, took, lost, asked_again))?;
    check(&address, &book, &before, &answers, &mut account).await?;
    account.finish()?;
    match account.discrepancies() {
        0 => {}
        count => return Err(broken(format!("{count} discrepancies (seed {}), see above", args.seed))),
    }
    if args.stay {
        stay(&address, &mut account).await?;
    }
    Ok(())
}

/// Asks until there is an answer; says how long that took.
async fn first_answer(address: &str) -> Result<String, Failure> {
    let started = Instant::now();
    let search = Search { city: "Rome".to_owned() };
    call::<Found>(&mut HttpClient::new(address), "search", None, &search).await.map_err(broken)?;
    Ok(millis(started))
}

async fn check(
    address: &str,
    book: &Book,
    before: &Order,
    answers: &[Answers],
    account: &mut Account,
) -> Result<(), Failure> {
    let reading = |error| failed("reading the book", error);
    account.say("\n  What the book says now:")?;
    let audit = Audit::of(book).await.map_err(reading)?;
    for check in verdict::check_book(&audit) {
        account.check(check)?;
    }
    account.check(verdict::check_answers(&audit, answers))?;
    account.check(verdict::check_order(before, &verdict::read_order(book).await.map_err(reading)?))?;
    let again = verdict::ask_again(address, answers).await;
    let after = Audit::of(book).await.map_err(reading)?;
    account.check(again.and_nothing_added(audit.events, after.events))?;
    account.say("")
}

/// Until ctrl-c.
async fn stay(address: &str, account: &mut Account) -> Result<(), Failure> {
    account.say(&format!(
        "  The server stays at http://{address} until ctrl-c. In another terminal:\n\n\
         \u{20}   curl -d '{{\"city\":\"Rome\"}}' http://{address}/call/search\n\
         \u{20}   curl -d '{{\"user\":\"me\",\"flight\":\"AZ201\",\"hotel\":\"trevi\"}}' -H 'Idempotency-Key: mine' http://{address}/call/book_trip\n\
         \u{20}   curl -d '{{\"user\":\"traveller-0\"}}' http://{address}/call/trips\n\
         \u{20}   curl 'http://{address}/v1/books/{BOOK}/records?tag=flight/BA117&dir=prev&limit=5'\n"
    ))?;
    std::future::pending().await
}

/// Something beside the promises went wrong.
fn failed(what: &str, error: impl Display) -> Failure {
    Failure::new(DEMO_BROKEN, Exit::Failed, format!("{what}: {error}"), "boki demo")
}

/// A promise does not hold.
fn broken(what: String) -> Failure {
    Failure::new(DEMO_BROKEN, Exit::Failed, what, "this is a bug of Boki: please report it, with the seed")
}

fn pid(pid: Option<u32>) -> String {
    pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string())
}

fn millis(since: Instant) -> String {
    format!("{} ms", since.elapsed().as_millis())
}
