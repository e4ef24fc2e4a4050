//! Deploying: who may, and what is refused. That what is deployed runs is shown with the real binary.

use serde_json::json;

use crate::client::{Answer, Running, start, start_with};

fn token(running: &Running) -> String {
    let text = std::fs::read_to_string(running.dir.path().join("data/deploy-token")).unwrap();
    format!("Bearer {}", text.trim())
}

async fn deploy(running: &Running, query: &str, headers: &[(&str, &str)], package: Vec<u8>) -> Answer {
    let token = token(running);
    let mut all = vec![("authorization", token.as_str())];
    all.extend(headers);
    running.send("POST", &format!("/v1/versions{query}"), &all, package).await
}

/// A package of one file.
fn package(name: &str, text: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn nothing_is_changed_without_the_token() {
    let running = start().await;
    let wrong: [&[(&str, &str)]; 4] =
        [&[], &[("authorization", "")], &[("authorization", "Bearer x")], &[("authorization", "Basic eDp5")]];
    for (method, path) in [
        ("POST", "/v1/versions?app=shop"),
        ("POST", "/v1/versions/shop/1/activate"),
        ("DELETE", "/v1/versions/shop/1"),
        ("DELETE", "/v1/versions/shop"),
    ] {
        for headers in wrong {
            running.send(method, path, headers, package("boki.toml", "")).await.is_problem(401, "BK0439");
        }
    }
    assert_eq!(running.get("/v1/versions").await.ok().json(), json!({ "apps": [] }));
}

#[tokio::test]
async fn what_cannot_be_a_version_is_refused_and_leaves_nothing() {
    let running = start_with(|config| {
        config.versions.package = boki_server::config::Size(4096);
        config.versions.files = 1;
    })
    .await;
    let mut links = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    links.append_link(&mut header, "out", "/etc").unwrap();
    for (package, part) in [
        (b"garbage that is no archive".repeat(40), "not a tar archive"),
        (Vec::new(), "boki.toml"),
        (package("other", ""), "boki.toml"),
        (package("boki.toml", "[deploy]\ncomand = \"x\"\n"), "comand"),
        (package("boki.toml", "[server]\n"), "no command"),
        (links.into_inner().unwrap(), "leads out"),
        (vec![0; 5000], "versions.package"),
    ] {
        let problem = deploy(&running, "?app=shop", &[], package).await.is_problem(400, "BK0436");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    let wrong = [("boki-checksum", "00")];
    let whole = || package("boki.toml", "[deploy]\ncommand = \"exit 1\"\n");
    let problem = deploy(&running, "?app=shop", &wrong, whole()).await.is_problem(400, "BK0436");
    assert!(problem["detail"].as_str().unwrap().contains("checksum"), "{problem}");
    for query in ["", "?app=a&app=b", "?ap=shop"] {
        deploy(&running, query, &[], whole()).await.is_problem(400, "BK0504");
    }
    for app in ["..", "a/b", ""] {
        deploy(&running, &format!("?app={app}"), &[], whole()).await.is_problem(400, "BK0436");
    }
    assert_eq!(running.get("/v1/versions").await.ok().json(), json!({ "apps": [] }));
    let incoming = running.dir.path().join("data/versions/.incoming");
    assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
}

#[tokio::test]
async fn what_does_not_start_is_told_with_its_last_lines() {
    let running = start().await;
    let broken = package("boki.toml", "[deploy]\ncommand = \"echo no such module; exit 7\"\n");
    let problem = deploy(&running, "?app=shop", &[], broken).await.is_problem(422, "BK0437");
    assert_eq!((&problem["stage"], &problem["version"]), (&json!("start"), &json!(1)));
    assert_eq!(problem["lines"], json!(["no such module"]));
    let app = running.get("/v1/versions/shop").await.ok().json();
    let version = &app["versions"][0];
    assert_eq!((&app["active"], &version["state"]), (&json!(null), &json!("failed")));
    assert_eq!(version["failure"]["lines"], json!(["no such module"]));
    assert!(running.get("/metrics").await.ok().text().contains("boki_deploys_failed_total 1\n"));
    // Step by step, for whoever watches.
    let broken = package("boki.toml", "[deploy]\nbuild = \"echo building; exit 7\"\ncommand = \"x\"\n");
    let steps = deploy(&running, "?app=shop", &[("accept", "text/event-stream")], broken).await.ok();
    let text = steps.text();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}"));
    assert!(at("\"event\":\"unpacked\"") < at("\"event\":\"building\""), "{text}");
    assert!(at("\"line\":\"building\"") < at("event: failed"), "{text}");
    assert!(text.contains("BK0437") && text.contains("\"stage\":\"build\""), "{text}");
}

#[tokio::test]
async fn versions_that_are_not_there() {
    let running = start().await;
    running.get("/v1/versions/shop").await.is_problem(404, "BK0438");
    let token = token(&running);
    let headers = [("authorization", token.as_str())];
    running.send("POST", "/v1/versions/shop/1/activate", &headers, "").await.is_problem(404, "BK0438");
    running.send("DELETE", "/v1/versions/shop", &headers, "").await.is_problem(404, "BK0438");
    running.send("DELETE", "/v1/versions/shop/x", &headers, "").await.is_problem(400, "BK0504");
}
