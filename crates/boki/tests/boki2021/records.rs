//! What a record may be.

use boki_sdk::prelude::*;
use boki_sdk::{Error, LogError};

use crate::support::Running;

/// The default limit on a payload.
const LIMIT: usize = 8 << 20;

#[tokio::test]
async fn t03_a_record_is_found_once_under_each_of_its_tags() {
    let running = Running::start().await;
    let book = running.book("tags").await;
    let seq = book.append("x").tags(["b", "a", "b", "c", "a"]).await.unwrap();
    for tag in ["a", "b", "c"] {
        let found = book.read_next(Seq::FIRST).tag(tag).await.unwrap();
        assert_eq!(found.len(), 1, "{tag}");
        assert_eq!(found[0].seq, seq);
        assert_eq!(found[0].tags().collect::<Vec<_>>(), ["a", "b", "c"], "each once, in order");
    }
    let tags = book.tags("").await.unwrap();
    assert_eq!(tags.tags.iter().map(|(tag, _)| &**tag).collect::<Vec<_>>(), ["a", "b", "c"]);
}

/// There, tags are numbers, of which two are refused, and no payload is empty. Here tags are 1 to 255 bytes of UTF-8,
/// those that begin with `~` are Boki's own, and an empty payload is one like any other.
#[tokio::test]
async fn t04_tags_and_payloads_beyond_a_limit_are_refused_and_those_at_it_are_kept_whole() {
    let running = Running::start().await;
    let book = running.book("limits").await;
    for (tag, code) in [(String::new(), "BK0102"), ("x".repeat(256), "BK0102"), ("~calls".to_owned(), "BK0103")] {
        let error = book.append("x").tag(&tag).await.unwrap_err();
        assert_eq!(error.code(), code, "{tag:?}");
    }
    let longest = "\u{e9}".repeat(127) + "x";
    assert_eq!(longest.len(), 255);
    let seq = book.append("").tag(&longest).await.unwrap();
    let found = book.read_prev(Seq::MAX).tag(&longest).first().await.unwrap().unwrap();
    assert_eq!((found.seq, found.data()), (seq, &b""[..]));

    let largest: Vec<u8> = (0..LIMIT).map(|at| (at % 251) as u8).collect();
    let seq = book.append(&largest).await.unwrap();
    let found = book.read_next(seq).first().await.unwrap().unwrap();
    assert_eq!(found.seq, seq);
    assert!(found.data() == largest, "it comes back as it was");

    let error = book.append(vec![0; LIMIT + 1]).await.unwrap_err();
    assert_eq!(error.code(), "BK0104", "{error}");
    let error = book.append("x").tags((0..65).map(|tag| tag.to_string())).await.unwrap_err();
    assert!(
        matches!(error, Error::Remote { ref code, .. } if code == "BK0104")
            || matches!(error, Error::Log(LogError::TooLarge { .. }))
    );
    assert_eq!(book.tail().await.unwrap(), seq, "nothing that was refused is there");
}
