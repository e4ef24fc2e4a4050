//! The workers that the server starts: this test's own program, as another process.

use std::time::Duration;

use boki_sdk::prelude::*;

/// What every function returns for a number: no two calls have the same.
pub(crate) fn answer_to(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) >> 12
}

/// The tag under which the effect of a call lies.
pub(crate) fn effect_tag(number: u64) -> String {
    format!("effect/{number}")
}

/// Does its work once, however many attempts it takes.
async fn effect(cx: Cx, number: u64) -> std::result::Result<u64, Failure> {
    let tag = effect_tag(number);
    match cx.book().append(b"done").tag(&tag).if_tail(&tag, 0).await {
        Ok(_) => {}
        // An earlier attempt did it.
        Err(error) if error.code() == "BK0201" => {}
        Err(error) => return Err(error.into()),
    }
    Ok(answer_to(number))
}

#[test]
#[ignore = "a worker process that the server of another test starts"]
fn steady() {
    Worker::new()
        .function("work", |_cx: Cx, number: u64| async move { Ok(answer_to(number)) })
        .function("effect", effect)
        .function("nested", |cx: Cx, number: u64| async move { Ok(cx.call::<u64>("work", &number).await?) })
        .function("chatty", |cx: Cx, number: u64| async move {
            for line in 0..200 {
                boki_sdk::info!(cx, "line {line} of {number}");
            }
            Ok(answer_to(number))
        })
        .function("big", |_cx: Cx, bytes: usize| async move { Ok("x".repeat(bytes)) })
        .run()
        .unwrap();
}

#[test]
#[ignore = "a worker process that the server of another test starts"]
fn shaky() {
    Worker::new()
        .function("crash", |cx: Cx, number: u64| async move {
            if cx.attempt() == 1 {
                std::process::abort();
            }
            effect(cx, number).await
        })
        .function("hang", |cx: Cx, number: u64| async move {
            if cx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            effect(cx, number).await
        })
        .function("block", |_cx: Cx, number: u64| async move {
            // What nobody should do: nothing else runs on this thread meanwhile.
            std::thread::sleep(Duration::from_millis(50));
            Ok(answer_to(number))
        })
        .run()
        .unwrap();
}
