//! Limits over HTTP.

use boki_server::config::LimitSection;
use serde_json::json;

use crate::client::{start, start_with};

fn section(name: &str, concurrency: u32) -> LimitSection {
    let form = json!({ "name": name, "match": "call:*", "concurrency": concurrency });
    serde_json::from_value(form).unwrap()
}

#[tokio::test]
async fn a_limit_is_set_seen_and_removed() {
    let running = start().await;
    assert_eq!(running.get("/v1/limits").await.ok().json(), json!({ "limits": [] }));
    let terms = json!({ "match": "call:report-*", "per_key": true, "rate": "5/m", "burst": 2, "queue": 10 });
    let headers = [("content-type", "application/json")];
    let set = running.send("PUT", "/v1/limits/reports", &headers, terms.to_string()).await.ok().json();
    assert_eq!((&set["name"], &set["source"], &set["limit"]), (&json!("reports"), &json!("set"), &terms));
    assert_eq!((&set["running"], &set["waiting"], &set["throttled"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(running.get("/v1/limits/reports").await.ok().json(), set);
    assert_eq!(running.get("/v1/limits").await.ok().json()["limits"], json!([set]));
    let metrics = running.get("/metrics").await.ok();
    assert!(metrics.text().contains("boki_limit_throttled_total{limit=\"reports\"} 0\n"));
    assert_eq!(running.send("DELETE", "/v1/limits/reports", &[], "").await.status, 204);
    running.get("/v1/limits/reports").await.is_problem(404, "BK0441");
    running.send("DELETE", "/v1/limits/reports", &[], "").await.is_problem(404, "BK0441");
}

#[tokio::test]
async fn a_limit_of_the_configuration_stays() {
    let running = start_with(|config| config.limit = vec![section("all", 7)]).await;
    let found = running.get("/v1/limits/all").await.ok().json();
    assert_eq!((&found["source"], &found["limit"]["concurrency"]), (&json!("config"), &json!(7)));
    running.send("DELETE", "/v1/limits/all", &[], "").await.is_problem(409, "BK0442");
}

#[tokio::test]
async fn a_limit_that_cannot_be_is_refused() {
    let running = start().await;
    let put = async |name: &str, terms: serde_json::Value| {
        running.send("PUT", &format!("/v1/limits/{name}"), &[], terms.to_string()).await
    };
    let problem = put("a", json!({ "match": "call:*", "rate": "fast" })).await.is_problem(400, "BK0440");
    assert_eq!(problem["field"], "rate");
    put("a", json!({ "match": "f", "concurrency": 1 })).await.is_problem(400, "BK0440");
    put("a", json!({ "match": "call:*" })).await.is_problem(400, "BK0440");
    put("a%20b", json!({ "match": "call:*", "concurrency": 1 })).await.is_problem(400, "BK0440");
    put("a", json!({ "match": "call:*", "concurency": 1 })).await.is_problem(400, "BK0503");
    put("a", json!({ "concurrency": 1 })).await.is_problem(400, "BK0503");
}
