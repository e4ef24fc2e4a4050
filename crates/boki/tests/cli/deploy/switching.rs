//! A version takes over once it serves, and not before; going back is the same.

use serde_json::{Value, json};

use super::app::{App, Gate, answer, command, data};
use crate::process::{Server, Talk, json_lines, run};

fn one(text: &str) -> Value {
    json_lines(text).remove(0)
}

/// The states of the app's versions, oldest first.
fn states(server: &Server) -> Vec<String> {
    let app = one(&server.ok(&["--json", "versions", "ls", "shop"]));
    let state = |version: &Value| format!("{} {}", version["version"], version["state"].as_str().unwrap());
    app["versions"].as_array().unwrap().iter().map(state).collect()
}

#[test]
fn calls_that_run_finish_on_the_old_code_and_new_ones_go_to_the_new() {
    let server = Server::start();
    let app = App::new("one");
    app.write("extra", "");
    let deployed = one(&app.deploy(&server).ok());
    assert_eq!(
        deployed,
        json!({ "app": "shop", "version": 1, "replaced": null, "functions": ["code", "extra", "hold"], "missing": [] })
    );
    assert_eq!(answer(&server), "one");

    let gate = Gate::new();
    let mut held = Talk::start(&mut server.boki(&["call", "hold", &json!(gate.path()).to_string()]));
    gate.wait_for_arrival();
    app.write("code", "two");
    std::fs::remove_file(app.folder().join("extra")).unwrap();
    let ended = app.deploy(&server);
    assert!(ended.stderr.contains("no longer has extra"), "{}", ended.stderr);
    let deployed = one(&ended.ok());
    assert_eq!((&deployed["replaced"], &deployed["missing"]), (&json!(1), &json!(["extra"])));
    for _ in 0..20 {
        assert_eq!(answer(&server), "two");
    }
    assert_eq!(states(&server), ["1 draining", "2 active"]);
    let text = server.ok(&["versions", "ls"]);
    assert!(text.contains("draining (1 calls left)"), "{text}");
    gate.let_go();
    assert_eq!(held.line(), "\"one\"");
}

#[test]
fn what_does_not_come_to_serve_changes_nothing() {
    let server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();

    app.write("code", "two");
    app.runs("echo oh dear; exit 3", "");
    let text = app.deploy(&server).failed_json(1, "BK0437");
    assert!(text.contains("oh dear"), "{text}");
    app.runs(&command(), "build = \"echo no compiler >&2; exit 4\"\n");
    let text = app.deploy(&server).failed_json(1, "BK0437");
    assert!(text.contains("no compiler"), "{text}");
    app.runs("exec sleep 20", "start_timeout = \"100ms\"\n");
    app.deploy(&server).failed_json(1, "BK0437");
    // Nothing to run at all: refused before anything is sent.
    app.runs(" ", "");
    app.deploy(&server).failed_json(2, "BK0707");

    assert_eq!(answer(&server), "one");
    assert_eq!(states(&server), ["1 active", "2 failed", "3 failed", "4 failed"]);
    let why = server.ok(&["versions", "get", "shop", "3"]);
    assert!(why.contains("no compiler"), "{why}");
    // A number that failed is not used again.
    app.runs(&command(), "build = \"printf built > code\"\n");
    assert_eq!(one(&app.deploy(&server).ok())["version"], 5);
    assert_eq!(answer(&server), "built");
}

#[test]
fn one_can_go_back() {
    let server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();
    app.write("code", "two");
    app.deploy(&server).ok();
    let back = |arguments: &[&str]| run(app.deploying(&server).arg("--rollback").args(arguments));
    assert_eq!(one(&back(&[]).ok())["version"], 1);
    assert_eq!(answer(&server), "one");
    // Back again, this time to a version that is named.
    assert_eq!(one(&back(&["2"]).ok())["replaced"], 1);
    assert_eq!(answer(&server), "two");
    back(&["2"]).failed_json(1, "BK0435");
    back(&["7"]).failed_json(5, "BK0438");
    let data = data(&server);
    let data = data.to_str().unwrap();
    run(&mut server.boki(&["versions", "rm", "shop", "2", "--data", data])).failed(1, "BK0435");
    server.ok(&["versions", "rm", "shop", "--all", "--data", data]);
    assert_eq!(server.ok(&["--json", "versions", "ls"]), "");
    assert_eq!(app.deploy(&server).code, 0);
    assert_eq!(one(&server.ok(&["--json", "versions", "get", "shop"]))["version"], 3);
}

#[test]
fn a_restart_starts_the_active_version() {
    let mut server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();
    app.write("code", "two");
    app.deploy(&server).ok();
    assert_eq!(server.stop(), 0);
    let server = server.start_again();
    assert_eq!(answer(&server), "two");
    assert_eq!(states(&server), ["1 kept", "2 active"]);
}

#[test]
fn only_so_many_versions_are_kept() {
    let server = Server::with_config("[versions]\nkeep = 2\n");
    let app = App::new("one");
    for code in ["one", "two", "three", "four"] {
        app.write("code", code);
        app.deploy(&server).ok();
        assert_eq!(answer(&server), code);
    }
    // Those whose workers have not ended yet go a moment later.
    while states(&server) != ["3 kept", "4 active"] {
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read_dir(data(&server).join("versions/shop")).unwrap().count(), 2);
}

#[test]
fn two_deploys_at_once_are_one_too_many() {
    let server = Server::start();
    let app = App::new("one");
    let gate = Gate::new();
    app.runs(&command(), &format!("build = \"{}\"\n", gate.shell()));
    let mut first = Talk::start(&mut app.deploying(&server));
    gate.wait_for_arrival();
    let other = App::new("two");
    other.deploy(&server).failed_json(1, "BK0435");
    gate.let_go();
    assert_eq!(one(&first.line())["version"], 1);
    assert_eq!(answer(&server), "one");
}

#[test]
fn nobody_deploys_without_the_token() {
    let server = Server::start();
    let app = App::new("one");
    let folder = app.folder().to_str().unwrap();
    let text = run(server.boki(&["deploy", folder]).env("BOKI_TOKEN", "guessed")).failed(1, "BK0439");
    assert!(text.contains("deploy-token"), "{text}");
    // No token is found where there is no server's data.
    run(server.boki(&["deploy", folder]).current_dir(folder)).failed(2, "BK0706");
    let token = std::fs::read_to_string(data(&server).join("deploy-token")).unwrap();
    run(server.boki(&["deploy", folder]).env("BOKI_TOKEN", token)).ok();
    // Beside the socket there is one.
    let socket = format!("unix:{}", data(&server).join("boki.sock").display());
    run(server.boki(&["deploy", folder, "--server", &socket]).current_dir(folder)).ok();
}
