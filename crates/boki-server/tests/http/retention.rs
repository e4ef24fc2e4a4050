//! What is kept of books.

use serde_json::json;

use crate::client::{start, start_with};

#[tokio::test]
async fn rules_are_set_shown_in_force_and_removed() {
    let running = start().await;
    let path = "/v1/books/default/retention";
    let nothing = running.get(path).await.ok().json();
    assert_eq!((&nothing["rules"], &nothing["source"]), (&json!([]), &json!("config")));
    for number in 0..200 {
        running.append(json!({"data": number, "tags": ["t"]})).await;
    }
    let rules = json!([{"max_age": "7days", "max_bytes": "10MiB"}, {"tag": "t*", "max_records": 10}]);
    let set = running.send("PUT", path, &[], json!({ "rules": rules }).to_string()).await.ok().json();
    assert_eq!((&set["rules"], &set["source"]), (&rules, &json!("set")));
    loop {
        let shown = running.get(path).await.ok().json();
        if shown["in_force"] == json!(true) && shown["records"].as_u64().is_some_and(|records| records < 74) {
            assert_eq!(shown["tags"], 1);
            break;
        }
        tokio::task::yield_now().await;
    }
    let left = running.get("/v1/books/default/records?tag=t&limit=1000").await.ok().json();
    let left = left["records"].as_array().unwrap().len();
    assert!((10..74).contains(&left), "{left}");
    assert_eq!(running.send("DELETE", path, &[], "").await.status, 204);
    assert_eq!(running.get(path).await.ok().json()["source"], "config");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_named() {
    let running = start().await;
    let put = async |rules: serde_json::Value| {
        running.send("PUT", "/v1/books/default/retention", &[], json!({ "rules": rules }).to_string()).await
    };
    let problem = put(json!([{"tag": "a/*"}])).await.is_problem(400, "BK0114");
    assert_eq!(problem["of"], "a/*");
    put(json!([{"max_records": 0}])).await.is_problem(400, "BK0114");
    put(json!([{"max_records": 1}, {"max_age": "1h"}])).await.is_problem(400, "BK0114");
    put(json!([{"tag": "~calls", "max_records": 1}])).await.is_problem(400, "BK0103");
    put(json!([{"max_age": 5}])).await.is_problem(400, "BK0503");
    put(json!([{"max": 5}])).await.is_problem(400, "BK0503");
    running.get("/v1/books/none/retention").await.is_problem(404, "BK0110");
    running.send("DELETE", "/v1/books/none/retention", &[], "").await.is_problem(404, "BK0110");
}

#[tokio::test]
async fn books_go_by_the_configuration() {
    let running = start_with(|config| {
        let toml = "[[retention]]\nbook = \"def*\"\nmax_records = 10";
        config.retention = boki_server::Config::from_text("", toml, []).unwrap().retention;
    })
    .await;
    let shown = running.get("/v1/books/default/retention").await.ok().json();
    assert_eq!((&shown["rules"], &shown["source"]), (&json!([{"max_records": 10}]), &json!("config")));
}
