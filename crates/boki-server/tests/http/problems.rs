//! Requests that cannot be served: each gets a problem with its code.

use serde_json::json;

use crate::client::{start, start_with};

const RECORDS: &str = "/v1/books/default/records";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn unknown_paths_and_wrong_methods() {
    let running = start().await;
    for path in ["/nothing", "/v1", "/v1/books/default/nothing", "/call", "/call/a/b"] {
        assert_eq!(running.get(path).await.is_problem(404, "BK0501")["path"], path);
    }
    for (method, path, allowed) in [
        ("GET", "/call/f", "POST"),
        ("DELETE", RECORDS, "GET,HEAD,POST"),
        ("POST", "/healthz", "GET,HEAD"),
        ("PUT", "/v1/books", "GET,HEAD,POST"),
    ] {
        let answer = running.send(method, path, &[], "").await;
        assert_eq!(answer.is_problem(405, "BK0502")["method"], method);
        let mut allow: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{path}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_as_expected() {
    let running = start().await;
    for (body, part) in [
        ("", "EOF while parsing"),
        ("{", "EOF while parsing"),
        ("[]", "the body is not as expected"),
        (r#"{"dta": 1}"#, "unknown field `dta`, expected one of `tags`, `data`"),
        (r#"{"tags": "x"}"#, "expected a sequence"),
        (r#"{"data": 1, "text": "x"}"#, "not several"),
        (r#"{"data": 1, "records": [{"data": 2}]}"#, "and also one record"),
        (r#"{"base64": "?"}"#, "base64: "),
        (r#"{"data": 1, "id": "x"}"#, "32 hexadecimal digits"),
        (r#"{"data": 1, "ack": "maybe"}"#, "expected `ordered` or `durable`"),
        (r#"{"data": 1, "if": {"tial": {}}}"#, "expected `tail` or `fence`"),
        (r#"{"data": 1, "if": {"tail": {"x": -1}}}"#, "expected u64"),
    ] {
        let problem = running.send("POST", RECORDS, &[JSON], body).await.is_problem(400, "BK0503");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{body}: {detail}");
    }
    // What curl sends by itself is taken as JSON, not stored as it is.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    running.send("POST", RECORDS, &form, "a=b").await.is_problem(400, "BK0503");
    running.send("POST", RECORDS, &form, r#"{"data": 1}"#).await.ok();
    running.send("POST", "/v1/books", &[JSON], r#"{"title": "x"}"#).await.is_problem(400, "BK0503");
}

#[tokio::test]
async fn queries_that_are_not_allowed() {
    let running = start().await;
    for (query, parameter) in [
        ("form=1", "form"),
        ("from=x", "from"),
        ("from=9007199254740992", "from"),
        ("from=1&from=2", "from"),
        ("dir=up", "dir"),
        ("limit=-1", "limit"),
        ("wait=30", "wait"),
        ("wait=2h", "wait"),
        ("wait=1s&dir=prev", "wait"),
        ("consistency=eventual", "consistency"),
    ] {
        let problem = running.get(&format!("{RECORDS}?{query}")).await.is_problem(400, "BK0504");
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
    running.get(&format!("{RECORDS}?tag=")).await.is_problem(400, "BK0102");
    running.get("/v1/books?x=1").await.is_problem(400, "BK0504");
    running.get("/v1/calls/xyz").await.is_problem(400, "BK0504");
    running.send("POST", &format!("{RECORDS}?tag=a"), &[JSON], r#"{"data":1}"#).await.is_problem(400, "BK0504");
}

#[tokio::test]
async fn headers_that_are_not_allowed() {
    let running = start().await;
    for (name, value) in [
        ("boki-position", "x"),
        ("boki-position", "9007199254740993"),
        ("boki-if-tail", "x"),
        ("boki-if-tail", "x=y"),
        ("boki-if-fence", "=1=x"),
        ("boki-append-id", "12"),
        ("boki-ack", "maybe"),
        ("boki-tags", "%ff"),
    ] {
        let problem = running.send("POST", RECORDS, &[(name, value)], "x").await.is_problem(400, "BK0505");
        assert_eq!(problem["header"].as_str().unwrap().to_ascii_lowercase(), name, "{name}: {value}");
    }
    let answer = running.send("POST", RECORDS, &[JSON, ("boki-tags", "x")], r#"{"data":1}"#).await;
    answer.is_problem(400, "BK0505");
    for header in [("boki-timeout", "5"), ("boki-priority", "10"), ("boki-priority", "high")] {
        running.send("POST", "/call/f", &[header], "").await.is_problem(400, "BK0505");
    }
}

#[tokio::test]
async fn what_is_larger_than_a_limit() {
    let running = start_with(|config| {
        config.limits.http_body = boki_server::config::Size(1000);
        config.limits.record = boki_server::config::Size(100);
    })
    .await;
    let problem = running.send("POST", RECORDS, &[], vec![0; 1001]).await.is_problem(413, "BK0506");
    assert_eq!(problem["limit"], 1000);
    let problem = running.send("POST", RECORDS, &[], vec![0; 101]).await.is_problem(413, "BK0104");
    assert_eq!((&problem["actual"], &problem["limit"]), (&json!(101), &json!(100)));
    running.send("POST", RECORDS, &[], vec![0; 100]).await.ok();
    let tags: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    running.post(RECORDS, json!({"tags": tags, "data": 1})).await.is_problem(413, "BK0104");
}

#[tokio::test]
async fn tags_that_are_not_allowed() {
    let running = start().await;
    running.post(RECORDS, json!({"tags": [""], "data": 1})).await.is_problem(400, "BK0102");
    let problem = running.post(RECORDS, json!({"tags": ["~x"], "data": 1})).await.is_problem(400, "BK0103");
    assert_eq!(problem["tag"], "~x");
    running.post(RECORDS, json!({"records": []})).await.is_problem(400, "BK0105");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let running = start().await;
    let origin = |origin| [("origin", origin)];
    let foreign = origin("https://elsewhere.example");
    running.send("POST", RECORDS, &foreign, "x").await.is_problem(403, "BK0509");
    running.send("GET", "/v1/status", &origin("null"), "").await.is_problem(403, "BK0509");
    running.send("POST", RECORDS, &origin("http://boki.test"), "x").await.ok();
    assert_eq!(running.get(RECORDS).await.ok().json()["records"].as_array().unwrap().len(), 1);
}
