//! Health, status, metrics, pages, the API's description.

use std::collections::BTreeSet;

use serde_json::json;

use crate::client::start;

#[tokio::test]
async fn a_server_that_runs_is_alive_and_ready() {
    let running = start().await;
    assert_eq!(running.get("/healthz").await.ok().text(), "ok\n");
    assert_eq!(running.get("/readyz").await.ok().text(), "ready\n");
}

#[tokio::test]
async fn status_says_what_matters() {
    let running = start().await;
    running.append(json!({"data": 1})).await;
    let status = running.get("/v1/status").await.ok().json();
    assert_eq!(status["durability"], "fsync");
    assert_eq!(status["log"]["writable"], "yes");
    assert_eq!(status["log"]["books"], 1);
    assert!(status["log"]["groups"].as_u64().unwrap() >= 1);
    assert!(status["http"]["requests"].as_u64().unwrap() >= 1);
    assert_eq!(status["warnings"], json!([]));
}

#[tokio::test]
async fn durability_memory_is_shown_as_a_warning() {
    let running =
        crate::client::start_with(|config| config.server.durability = boki_server::config::Durability::Memory).await;
    let status = running.get("/v1/status").await.ok().json();
    assert!(status["warnings"][0].as_str().unwrap().contains("memory"));
    assert!(running.get("/").await.ok().text().contains("class=\"bad\""));
}

#[tokio::test]
async fn metrics_are_in_prometheus_text_format() {
    let running = start().await;
    running.append(json!({"data": 1})).await;
    running.get("/nothing").await;
    let answer = running.get("/metrics").await.ok();
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let mut seen = BTreeSet::new();
    for line in answer.text().lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            assert!(rest.starts_with("HELP boki_") || rest.starts_with("TYPE boki_"), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        assert!(seen.insert(name.to_owned()), "{name} twice");
    }
    for name in [
        "boki_log_appended_records_total",
        "boki_call_duration_seconds_bucket{le=\"+Inf\"}",
        "boki_call_duration_seconds_bucket{le=\"0.0001\"}",
        "boki_http_requests_total{status=\"2xx\"}",
    ] {
        assert!(seen.contains(name), "{name} in {seen:?}");
    }
    assert!(answer.text().contains("boki_http_requests_total{status=\"4xx\"} 1\n"));
    assert!(answer.text().contains("boki_log_durable 1\n"));
}

#[tokio::test]
async fn the_start_page_shows_books_and_functions() {
    let running = start().await;
    running.post("/v1/books", json!({"name": "a-book"})).await.ok();
    let answer = running.get("/").await.ok();
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    assert!(answer.text().contains(">a-book</a>"));
    assert!(answer.text().contains("No worker is connected"));
}

#[tokio::test]
async fn the_description_lists_every_route() {
    let running = start().await;
    let description = running.get("/openapi.json").await.ok().json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut listed = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            listed.insert(format!("{} {path}", method.to_ascii_uppercase()));
            assert!(operation["summary"].is_string(), "{method} {path} has a summary");
            assert!(ids.insert(operation["operationId"].clone().to_string()), "{} twice", operation["operationId"]);
            assert!(operation["responses"]["default"]["content"]["application/problem+json"].is_object());
            // It is a route: whatever it answers, it is not that there is nothing.
            let concrete = path
                .replace("{book}", "default")
                .replace("{seq}", "1")
                .replace("{code}", "BK0201")
                .replace("{function}", "f")
                .replace("{name}", "all")
                .replace("{id}", "0123456789abcdef0123456789abcdef");
            if *method != "delete" {
                let answer = running.send(&method.to_ascii_uppercase(), &concrete, &[], "").await;
                let is_missing = answer.header("content-type").starts_with("application/problem")
                    && ["BK0501", "BK0502"].iter().any(|code| answer.json()["code"] == *code);
                assert!(!is_missing, "{method} {concrete}");
            }
        }
    }
    let expected = [
        "DELETE /v1/books/{book}",
        "DELETE /v1/books/{book}/retention",
        "DELETE /v1/limits/{name}",
        "GET /",
        "GET /errors/{code}",
        "GET /healthz",
        "GET /metrics",
        "GET /openapi.json",
        "GET /readyz",
        "GET /v1/books",
        "GET /v1/books/{book}",
        "GET /v1/books/{book}/records",
        "GET /v1/books/{book}/records/{seq}",
        "GET /v1/books/{book}/retention",
        "GET /v1/books/{book}/tags",
        "GET /v1/books/{book}/tail",
        "GET /v1/calls/{id}",
        "GET /v1/calls/{id}/logs",
        "GET /v1/calls/{id}/result",
        "GET /v1/functions",
        "GET /v1/limits",
        "GET /v1/limits/{name}",
        "GET /v1/logs",
        "GET /v1/mounts",
        "GET /v1/pools",
        "GET /v1/status",
        "GET /v1/time",
        "POST /v1/time/advance",
        "GET /v1/versions",
        "GET /v1/versions/{app}",
        "POST /v1/versions",
        "POST /v1/versions/{app}/{version}/activate",
        "DELETE /v1/versions/{app}",
        "DELETE /v1/versions/{app}/{version}",
        "POST /call/{function}",
        "POST /send/{function}",
        "POST /v1/books",
        "POST /v1/books/{book}/records",
        "GET /v1/doctor",
        "POST /v1/doctor",
        "POST /v1/books/{book}/trim",
        "POST /v1/calls/{id}/cancel",
        "PUT /v1/books/{book}/records/{seq}/aux",
        "PUT /v1/books/{book}/retention",
        "PUT /v1/limits/{name}",
    ];
    assert_eq!(listed, expected.into_iter().map(str::to_owned).collect());
}
