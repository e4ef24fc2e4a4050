//! The server's time, real and virtual.

use serde_json::json;

use crate::client::{config, start};

#[tokio::test]
async fn real_time_can_be_asked_for_and_is_not_moved() {
    let running = start().await;
    let time = running.get("/v1/time").await.ok().json();
    assert_eq!(time["virtual"], false);
    assert!(time["time_us"].as_u64().unwrap() > 1_700_000_000_000_000);
    let refused = running.post("/v1/time/advance", json!({"by": "1h"})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("BK0428")));
}

#[tokio::test]
async fn a_step_has_a_unit_and_an_end() {
    let running = start().await;
    for by in ["1", "soon", "366d", ""] {
        let refused = running.post("/v1/time/advance", json!({"by": by})).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("BK0503")), "{by:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_time_needs_its_own_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let clock = boki_server::Clock::virtual_from(0);
    let error = Box::pin(boki_server::Server::start_with(config(&folder), clock)).await.unwrap_err();
    assert_eq!(error.code(), "BK0429");
}
