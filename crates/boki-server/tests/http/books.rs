//! Books.

use serde_json::json;

use crate::client::start;

#[tokio::test]
async fn the_default_book_is_there_from_the_start() {
    let running = start().await;
    let books = running.get("/v1/books").await.ok().json();
    assert_eq!(books["books"].as_array().unwrap().len(), 1);
    assert_eq!(books["books"][0]["name"], "default");
}

#[tokio::test]
async fn books_are_made_found_and_removed() {
    let running = start().await;
    let made = running.post("/v1/books", json!({"name": "shop"})).await;
    assert_eq!((made.status, made.header("location")), (201, "/v1/books/shop"));
    let id = made.json()["id"].as_u64().unwrap();
    let problem = running.post("/v1/books", json!({"name": "shop"})).await.is_problem(409, "BK0111");
    assert_eq!(problem["book"], "shop");

    let seq = running.post("/v1/books/shop/records", json!({"data": 1})).await.ok().json()["seq"].clone();
    let found = running.get("/v1/books/shop").await.ok().json();
    assert_eq!((&found["id"], &found["tail"]), (&json!(id), &seq));
    let names = running.get("/v1/books").await.ok().json();
    let names: Vec<_> = names["books"].as_array().unwrap().iter().map(|book| book["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "shop"]);

    assert_eq!(running.send("DELETE", "/v1/books/shop", &[], "").await.status, 204);
    let problem = running.get("/v1/books/shop").await.is_problem(404, "BK0110");
    assert_eq!(problem["next"], "boki books new shop");
    running.post("/v1/books/shop/records", json!({"data": 1})).await.is_problem(404, "BK0110");
    running.send("DELETE", "/v1/books/shop", &[], "").await.is_problem(404, "BK0110");
    // A new book of the name has nothing of the old one.
    let again = running.post("/v1/books", json!({"name": "shop"})).await.ok().json();
    assert_ne!(again["id"], id);
    assert_eq!(running.get("/v1/books/shop").await.ok().json()["tail"], 0);
}

#[tokio::test]
async fn names_are_checked() {
    let running = start().await;
    running.post("/v1/books", json!({"name": ""})).await.is_problem(400, "BK0112");
    running.post("/v1/books", json!({"name": "x".repeat(1000)})).await.is_problem(400, "BK0112");
}
