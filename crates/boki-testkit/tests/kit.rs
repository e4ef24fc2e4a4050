//! The test kit, used as a test of functions would use it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use boki_sdk::prelude::*;
use boki_server::config::LimitSection;
use boki_testkit::TestBoki;
use tokio::sync::Notify;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// Sells one of a stock that never grows: correct only if it may run twice.
async fn sell(cx: Cx, sku: String) -> Result<u64> {
    let (book, stock, sale) = (cx.book(), format!("stock/{sku}"), format!("sale/{}", cx.call_id()));
    loop {
        if let Some(sold) = book.read_prev(Seq::MAX).tag(&sale).first().await? {
            return Ok(sold.json()?);
        }
        let last = book.read_prev(Seq::MAX).tag(&stock).first().await?;
        let (seen, left) = match &last {
            Some(record) => (record.seq, record.json::<u64>()?),
            None => (Seq::NONE, 10),
        };
        let sold =
            book.append(Json(left - 1)).tags([&stock, &sale]).if_tail(&stock, seen).if_tail(&sale, Seq::NONE).await;
        match sold {
            Ok(_) => return Ok(left - 1),
            Err(error) if error.is_condition_failed() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sells, and does not look whether it has already.
async fn sell_carelessly(cx: Cx, sku: String) -> Result<u64> {
    let (book, stock) = (cx.book(), format!("stock/{sku}"));
    let last = book.read_prev(Seq::MAX).tag(&stock).first().await?;
    let left = last.map_or(Ok(10), |record| record.json::<u64>())?;
    book.append(Json(left - 1)).tag(&stock).await?;
    Ok(left - 1)
}

fn shop() -> Worker {
    Worker::new()
        .function("sell", sell)
        .function("sell_carelessly", sell_carelessly)
        .function("sell_by_another", |cx: Cx, sku: String| async move {
            let key = cx.call_id().to_string();
            Ok(cx.call::<u64>("sell", &sku).key(key).await?)
        })
        .function("attempt", |cx: Cx, (): ()| async move { Ok(cx.attempt()) })
}

async fn stock(boki: &TestBoki, sku: &str) -> u64 {
    let book = boki.book("default").await;
    book.read_prev(Seq::MAX).tag(format!("stock/{sku}")).first().await.unwrap().unwrap().json().unwrap()
}

#[tokio::test]
async fn a_worker_that_crashes_after_an_operation_is_followed_by_another_attempt() {
    let boki = TestBoki::start(shop()).await;
    for operation in ["start", "read", "append", "return"] {
        boki.crash_after(operation, 1);
        let left: u64 = boki.call("sell", &operation).await.unwrap();
        assert_eq!((left, stock(&boki, operation).await), (9, 9), "{operation}");
    }
    boki.crash_after("append", 1);
    let left: u64 = boki.call("sell_carelessly", &"careless").await.unwrap();
    assert_eq!((left, stock(&boki, "careless").await), (8, 8), "the kit would not find what it is there to find");
    boki.crash_after("return", 1);
    let attempt: u32 = boki.call("attempt", &()).await.unwrap();
    assert_eq!(attempt, 2);
    let attempt: u32 = boki.call("attempt", &()).await.unwrap();
    assert_eq!(attempt, 1, "a planned crash happens once");
}

#[tokio::test]
async fn the_nth_operation_is_the_nth_of_an_attempt() {
    let boki = TestBoki::start(shop()).await;
    let _: u64 = boki.call("sell", &"tea").await.unwrap();
    // One that sells reads twice before it appends.
    boki.crash_after("read", 3);
    let left: u64 = boki.call("sell", &"tea").await.unwrap();
    assert_eq!(left, 8);
    boki.crash_after("call", 1);
    let left: u64 = boki.call("sell_by_another", &"tea").await.unwrap();
    assert_eq!((left, stock(&boki, "tea").await), (7, 7));
}

#[tokio::test]
async fn a_worker_can_crash_at_any_moment() {
    let begun = Arc::new(Notify::new());
    let worker = Worker::new().function("wait", {
        let begun = Arc::clone(&begun);
        move |cx: Cx, (): ()| {
            let begun = Arc::clone(&begun);
            async move {
                if cx.attempt() == 1 {
                    begun.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok(cx.attempt())
            }
        }
    });
    let boki = TestBoki::start(worker).await;
    let call = boki.call::<u32>("wait", &());
    let (attempt, ()) = tokio::join!(call, async {
        begun.notified().await;
        boki.crash_worker().await;
    });
    assert_eq!(attempt.unwrap(), 2);
}

#[tokio::test]
async fn deadlines_follow_the_clock_to_the_millisecond() {
    let begun = Arc::new(Notify::new());
    let worker = Worker::new().function("wait", {
        let begun = Arc::clone(&begun);
        move |_: Cx, (): ()| {
            let begun = Arc::clone(&begun);
            async move {
                begun.notify_one();
                std::future::pending::<Result<()>>().await
            }
        }
    });
    let boki = TestBoki::start(worker).await;
    let call = boki.client().call("wait", Json(())).deadline(HOUR).into_future();
    let call = tokio::spawn(call);
    begun.notified().await;
    boki.advance(HOUR - Duration::from_millis(1)).await;
    let functions = boki.client().functions().await.unwrap();
    assert_eq!(functions[0].running, 1, "an hour is not over yet");
    assert!(!call.is_finished());
    boki.advance(Duration::from_millis(1)).await;
    assert_eq!(call.await.unwrap().unwrap_err().code(), "BK0404");
}

#[tokio::test]
async fn a_pause_before_another_attempt_ends_when_time_has_passed() {
    let attempts = Arc::new(AtomicU32::new(0));
    let worker = Worker::new().function("flaky", {
        let attempts = Arc::clone(&attempts);
        move |cx: Cx, (): ()| {
            attempts.fetch_add(1, Ordering::SeqCst);
            async move {
                match cx.attempt() {
                    3 => Ok(3),
                    _ => Err(Failure::new("not yet").retryable()),
                }
            }
        }
    });
    let boki = TestBoki::start(worker).await;
    let sent = boki.send("flaky", &()).await.unwrap();
    boki.pausing(1).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
    boki.advance(SECOND).await;
    boki.pausing(1).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    boki.advance(SECOND).await;
    assert_eq!(boki.result::<u32>(&sent).await.unwrap(), 3);
}

#[tokio::test]
async fn a_functions_own_timers_follow_the_clock() {
    let begun = Arc::new(Notify::new());
    let worker = Worker::new().function("nap", {
        let begun = Arc::clone(&begun);
        move |_: Cx, (): ()| {
            let begun = Arc::clone(&begun);
            async move {
                let since = tokio::time::Instant::now();
                begun.notify_one();
                tokio::time::sleep(30 * SECOND).await;
                Ok(since.elapsed().as_secs())
            }
        }
    });
    let boki = TestBoki::start(worker).await;
    let call = boki.call::<u64>("nap", &());
    let (seconds, ()) = tokio::join!(call, async {
        begun.notified().await;
        boki.advance(30 * SECOND).await;
    });
    assert_eq!(seconds.unwrap(), 30);
}

#[tokio::test]
async fn records_are_dated_by_the_clock_and_a_keyed_result_is_kept_for_its_retention() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let boki = TestBoki::builder(shop()).time(start).start().await;
    assert_eq!(boki.now(), start);
    let sell = || async {
        let output = boki.client().call("sell_carelessly", Json("tea")).key("order-17").await.unwrap();
        output.json::<u64>().unwrap()
    };
    assert_eq!((sell().await, sell().await), (9, 9));
    boki.advance(23 * HOUR).await;
    assert_eq!(sell().await, 9);
    boki.advance(2 * HOUR).await;
    // A server that starts trims what is over before it answers.
    boki.crash_server_and_restart().await;
    assert_eq!(sell().await, 8, "after its retention a key is new again");
    let book = boki.book("default").await;
    let sales = book.read_next(1).tag("stock/tea").limit(10).await.unwrap();
    let times: Vec<Duration> = sales.iter().map(|sale| sale.time().duration_since(start).unwrap()).collect();
    assert_eq!(times, [Duration::ZERO, 25 * HOUR]);
}

#[tokio::test]
async fn a_server_that_crashes_loses_nothing_that_was_acknowledged() {
    let begun = Arc::new(Notify::new());
    let worker = shop().function("wait", {
        let begun = Arc::clone(&begun);
        move |cx: Cx, (): ()| {
            let begun = Arc::clone(&begun);
            async move {
                begun.notify_one();
                cx.book().read_next(1).tag("go").wait(24 * HOUR).first().await?;
                Ok(7)
            }
        }
    });
    let boki = TestBoki::start(worker).await;
    let _: u64 = boki.call("sell", &"tea").await.unwrap();
    boki.advance(HOUR).await;
    let before = boki.now();
    let sent = boki.send("wait", &()).await.unwrap();
    begun.notified().await;
    boki.crash_server_and_restart().await;
    assert_eq!(boki.now(), before);
    begun.notified().await;
    assert_eq!(stock(&boki, "tea").await, 9);
    let left: u64 = boki.call("sell", &"tea").await.unwrap();
    assert_eq!(left, 8);
    boki.book("default").await.append(b"").tag("go").await.unwrap();
    assert_eq!(boki.result::<u32>(&sent).await.unwrap(), 7);
    boki.shutdown().await;
}

#[tokio::test]
async fn two_kits_have_two_clocks() {
    let (one, two) = tokio::join!(TestBoki::start(shop()), TestBoki::start(shop()));
    let before = two.now();
    one.advance(HOUR).await;
    assert_eq!(two.now(), before);
    assert!(one.now() >= before + HOUR - SECOND);
    let (first, second) = tokio::join!(one.call::<u64>("sell", &"tea"), two.call::<u64>("sell", &"tea"));
    assert_eq!((first.unwrap(), second.unwrap()), (9, 9));
}

#[tokio::test]
#[should_panic(expected = "there is no operation \"apend\"")]
async fn a_misspelt_operation_is_noticed() {
    TestBoki::start(shop()).await.crash_after("apend", 1);
}

#[tokio::test]
async fn a_rate_follows_the_clock() {
    let slow = LimitSection {
        name: "slow".to_owned(),
        r#match: "call:attempt".to_owned(),
        rate: Some("1/m".to_owned()),
        key: None,
        per_key: false,
        concurrency: None,
        burst: None,
        weight: None,
        queue: None,
    };
    let boki = TestBoki::builder(shop()).config(|config| config.limit.push(slow)).start().await;
    assert_eq!(boki.call::<u32>("attempt", &()).await.unwrap(), 1);
    let second = boki.send("attempt", &()).await.unwrap();
    let client = boki.client();
    boki.advance(59 * SECOND).await;
    assert_eq!(client.default_call_result(second.id, None).await.unwrap(), None);
    boki.advance(SECOND).await;
    assert_eq!(boki.result::<u32>(&second).await.unwrap(), 1);
}
