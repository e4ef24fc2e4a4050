//! Functions that answer HTTP requests below a path.

use boki_sdk::Failure;
use boki_sdk::http::{Cookie, Request, Response};
use boki_sdk::prelude::*;
use boki_server::config::Config;
use serde_json::{Value, json};

use crate::client::{Answer, Running, in_time, request, start_with};

const MOUNTS: &str = r#"
    [[mount]]
    path = "/"
    function = "site"
    [[mount]]
    path = "/shop"
    function = "shop"
    origins = ["https://app.example"]
    [[mount]]
    path = "/shop/admin"
    function = "admin"
    methods = ["GET", "PUT"]
    book = "admin"
    [[mount]]
    path = "/open"
    function = "shop"
    origins = ["*"]
    [[mount]]
    path = "/nobody"
    function = "nobody"
    origins = ["*"]
"#;

/// Answers with what it sees.
async fn seen(who: &str, mut request: Request) -> Result<Response> {
    let body = request.text().await?;
    Response::json(&json!({
        "who": who,
        "method": request.method(),
        "path": request.path(),
        "query": request.query(),
        "headers": request.headers().collect::<Vec<_>>(),
        "body": body,
    }))
}

async fn mounted() -> Running {
    let config: Config = toml::from_str(MOUNTS).unwrap();
    let running = start_with(|own| own.mount = config.mount).await;
    running.post("/v1/books", json!({"name": "admin"})).await.ok();
    let worker = Worker::new()
        .server(running.address().to_string())
        .http("site", async |_, request| seen("site", request).await)
        .http("admin", async |cx: Cx, request| {
            cx.book().append(b"seen").tags(["seen"]).await?;
            seen("admin", request).await
        })
        .http("shop", async |_, mut request: Request| {
            let segments = request.segments();
            match segments.first().map(String::as_str) {
                Some("login") => {
                    let before = request.cookie("user").unwrap_or("nobody").to_owned();
                    let user = request.param("user").unwrap_or_default().into_owned();
                    let set = Cookie::new("user", user);
                    let theme = Cookie::new("theme", "dark").for_scripts();
                    Ok(Response::redirect("/shop").cookie(set).cookie(theme).header("x-before", before))
                }
                Some("gone") => Ok(Response::text("no such page").status(410)),
                Some("large") => Ok(Response::text("x".repeat(1 << 20))),
                Some("nothing") => Ok(Response::new().status(204)),
                Some("number") => {
                    let number: u64 = request.json().await?;
                    Response::json(&(number + 1))
                }
                Some("fail") => Err(Failure::new("out of tea").code("sold_out")),
                Some("broken") => Ok(Response::text("").header("x y", "1")),
                Some("panic") => panic!("at the till"),
                _ => seen("shop", request).await,
            }
        });
    tokio::spawn(worker.serve());
    in_time(async {
        while running.server.functions().list().iter().all(|function| function.workers == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running
}

fn header<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    let headers = seen["headers"].as_array().unwrap();
    headers.iter().find(|header| header[0] == name).and_then(|header| header[1].as_str())
}

#[tokio::test]
async fn the_longest_path_answers_and_sees_the_rest() {
    let running = mounted().await;
    for (path, who, rest) in [
        ("/", "site", "/"),
        ("/about/us", "site", "/about/us"),
        ("/shopping", "site", "/shopping"),
        ("/shop", "shop", "/"),
        ("/shop/", "shop", "/"),
        ("/shop/a%20b/c", "shop", "/a%20b/c"),
        ("/shop/admin", "admin", "/"),
        ("/shop/admin/x", "admin", "/x"),
        ("/shop/administrator", "shop", "/administrator"),
    ] {
        let seen = running.get(path).await.ok().json();
        assert_eq!((seen["who"].as_str(), seen["path"].as_str()), (Some(who), Some(rest)), "{path}");
    }
    // What the server answers itself, it goes on answering.
    assert_eq!(running.get("/healthz").await.status, 200);
    running.get("/v1/nothing").await.is_problem(404, "BK0501");
    running.post("/call/nobody-has-this", json!(1)).await.is_problem(404, "BK0401");
    let mounts = running.get("/v1/mounts").await.ok().json();
    let paths: Vec<_> = mounts["mounts"].as_array().unwrap().iter().map(|mount| mount["path"].clone()).collect();
    assert_eq!(paths.first().unwrap(), "/shop/admin");
    assert_eq!(paths.last().unwrap(), "/");
}

#[tokio::test]
async fn a_function_sees_the_request_as_it_came() {
    let running = mounted().await;
    let headers = [
        ("x-own", "1"),
        ("idempotency-key", "theirs"),
        ("boki-book", "other"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("content-type", "text/x-any"),
    ];
    for method in ["PUT", "PROPFIND"] {
        let answer = running.send(method, "/shop/a?x=1&y=%20", &headers, "body").await.ok();
        assert!(answer.headers.contains_key("boki-call") && answer.headers.contains_key("boki-position"));
        let seen = answer.json();
        assert_eq!(
            (&seen["method"], &seen["query"], &seen["body"]),
            (&json!(method), &json!("x=1&y=%20"), &json!("body"))
        );
        assert_eq!(header(&seen, "x-own"), Some("1"));
        assert_eq!(header(&seen, "idempotency-key"), Some("theirs"));
        assert_eq!(header(&seen, "content-type"), Some("text/x-any"));
        for absent in ["boki-book", "connection", "x-hop"] {
            assert_eq!(header(&seen, absent), None, "{absent}");
        }
    }
    // What asks for another protocol is answered in this one.
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let seen = running.send("GET", "/shop", &upgrade, "").await.ok().json();
    assert_eq!(header(&seen, "upgrade"), None);
    // By its name it is called with a POST of everything.
    let seen = running.send("POST", "/call/shop", &[("x-own", "2")], "1").await.ok().json();
    assert_eq!((&seen["method"], &seen["path"], header(&seen, "x-own")), (&json!("POST"), &json!("/"), Some("2")));
    // And on record without a request of its own.
    let seen = running.send("POST", "/call/shop", &[("x-own", "2"), ("idempotency-key", "k")], "1").await.ok().json();
    assert_eq!((&seen["method"], header(&seen, "x-own"), &seen["body"]), (&json!("POST"), None, &json!("1")));
    // It works in the mount's book.
    running.get("/shop/admin").await.ok();
    let records = running.get("/v1/books/admin/records?tag=seen").await.ok().json();
    assert_eq!(records["records"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_response_has_what_the_function_gave_it() {
    let running = mounted().await;
    let answer = running.send("GET", "/shop/login?user=ada", &[("cookie", "a=b; user=eve")], "").await;
    assert_eq!((answer.status, answer.header("location"), answer.header("x-before")), (303, "/shop", "eve"));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies, ["user=ada; Path=/; HttpOnly; SameSite=Lax", "theme=dark; Path=/; SameSite=Lax"]);
    let answer = running.get("/shop/gone").await;
    assert_eq!((answer.status, answer.text()), (410, "no such page"));
    assert_eq!((answer.header("content-type"), answer.header("content-length")), ("text/plain; charset=utf-8", "12"));
    let answer = running.get("/shop/large").await.ok();
    assert_eq!((answer.body.len(), answer.header("content-length")), (1 << 20, "1048576"));
    let answer = running.get("/shop/nothing").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert!(!answer.headers.contains_key("content-type"));
    let answer = running.send("HEAD", "/shop/gone", &[], "").await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (410, "12", 0));
}

#[tokio::test]
async fn what_fails_is_told_as_everywhere() {
    let running = mounted().await;
    assert_eq!(running.post("/shop/number", json!(1)).await.ok().text(), "2");
    let answer = running.send("POST", "/shop/number", &[], "one").await;
    assert_eq!((answer.status, answer.text().split(':').next()), (400, Some("the body does not fit")));
    let answer = running.send("POST", "/shop/number", &[], vec![b'1'; (8 << 20) + 1]).await;
    assert_eq!(answer.status, 413);
    let problem = running.get("/shop/fail").await.is_problem(500, "BK0402");
    assert_eq!((&problem["message"], &problem["function_code"]), (&json!("out of tea"), &json!("sold_out")));
    running.get("/shop/panic").await.is_problem(500, "BK0402");
    running.get("/shop/broken").await.is_problem(502, "BK0423");
    let answer = running.send("GET", "/nobody/x", &[("origin", "https://any.example")], "").await;
    answer.is_problem(404, "BK0401");
    // A page can read what went wrong.
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    running.send("GET", "/shop", &[("boki-position", "x")], "").await.is_problem(400, "BK0505");
}

#[tokio::test]
async fn only_the_methods_of_a_mount_are_taken() {
    let running = mounted().await;
    let answer = running.send("DELETE", "/shop/admin/x", &[], "").await;
    answer.is_problem(405, "BK0502");
    assert_eq!(answer.header("allow"), "GET, PUT, HEAD");
    for method in ["GET", "PUT", "HEAD"] {
        running.send(method, "/shop/admin/x", &[], "").await.ok();
    }
}

async fn preflight(running: &Running, path: &str, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-own, content-type"),
    ];
    running.send("OPTIONS", path, &headers, "").await
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_where_the_mount_says_so() {
    let running = mounted().await;
    let app = "https://app.example";
    let answer = preflight(&running, "/shop/a", app).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for (name, expected) in [
        ("access-control-allow-origin", app),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-own, content-type"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), expected, "{name}");
    }
    let answer = running.send("PUT", "/shop/a", &[("origin", app)], "").await.ok();
    assert_eq!(answer.header("access-control-allow-origin"), app);
    assert_eq!(answer.json()["who"], "shop");
    // Others may not.
    preflight(&running, "/shop/a", "https://evil.example").await.is_problem(403, "BK0509");
    let answer = running.send("PUT", "/shop/a", &[("origin", "https://evil.example")], "").await;
    answer.is_problem(403, "BK0509");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    // The site's own pages may.
    running.send("PUT", "/shop/a", &[("origin", "http://boki.test")], "").await.ok();
    // All may, without cookies.
    let answer = preflight(&running, "/open", "https://any.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    // Where nothing is said, the function is asked.
    let seen = preflight(&running, "/site", "https://any.example").await.ok().json();
    assert_eq!((&seen["who"], &seen["method"]), (&json!("site"), &json!("OPTIONS")));
    // And the API stays closed.
    running.send("GET", "/v1/books", &[("origin", app)], "").await.is_problem(403, "BK0509");
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let running = mounted().await;
    let mut connection = running.connect().await;
    for path in ["/shop/gone", "/shop/large", "/shop/nothing", "/about", "/shop/fail", "/v1/mounts"] {
        let response = in_time(connection.send_request(request("GET", path, &[], ""))).await.unwrap();
        crate::client::answer(response).await;
        in_time(connection.ready()).await.unwrap();
    }
}
