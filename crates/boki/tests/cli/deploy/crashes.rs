//! A server that is killed in the middle of a deploy has the old version or the new one afterwards, and no leftovers.

use std::process::Stdio;

use rustix::process::Signal;

use super::app::{App, Gate, answer, command, data};
use crate::process::{Server, Talk, json_lines};

fn leftovers(server: &Server) -> usize {
    std::fs::read_dir(data(server).join("versions/.incoming")).unwrap().count()
}

/// Deploys what gets as far as the gate, kills the server there, and starts it again.
fn kill_at(gate: &Gate, app: &App, mut server: Server) -> Server {
    let mut deploying = Talk::start(app.deploying(&server).stderr(Stdio::null()));
    gate.wait_for_arrival();
    server.kill();
    assert_eq!(deploying.end(), 3);
    // What waits there is nobody's any more.
    gate.let_go();
    server.start_again()
}

#[test]
fn killed_while_it_builds() {
    let server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();
    let gate = Gate::new();
    app.write("code", "two");
    app.runs(&command(), &format!("build = \"{}\"\n", gate.shell()));
    let server = kill_at(&gate, &app, server);
    assert_eq!((answer(&server).as_str(), leftovers(&server)), ("one", 0));
    // The next deploy is not in anybody's way.
    app.runs(&command(), "");
    app.deploy(&server).ok();
    assert_eq!(answer(&server), "two");
}

#[test]
fn killed_while_the_new_workers_start() {
    let server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();
    let gate = Gate::new();
    app.write("code", "two");
    app.runs(&gate.shell(), "");
    let server = kill_at(&gate, &app, server);
    assert_eq!(answer(&server), "one");
    let versions = json_lines(&server.ok(&["--json", "versions", "ls"])).remove(0);
    assert_eq!((&versions["versions"][1]["state"], versions["active"].as_u64()), (&"failed".into(), Some(1)));
    assert!(!data(&server).join("versions/shop/2/files").exists());
}

#[test]
fn killed_right_after_the_switch() {
    let mut server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();
    app.write("code", "two");
    app.deploy(&server).ok();
    server.kill();
    // As if it had not come to write down that version 2 has been active: the log says so.
    let path = data(&server).join("versions/shop/2/version.json");
    let mut info: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    info["activated_us"] = serde_json::Value::Null;
    std::fs::write(&path, info.to_string()).unwrap();
    let server = server.start_again();
    assert_eq!(answer(&server), "two");
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(info["activated_us"].is_u64());
}

#[test]
fn a_version_whose_files_are_gone_is_no_reason_not_to_start() {
    let mut server = Server::start();
    let app = App::new("one");
    app.deploy(&server).ok();
    server.kill();
    std::fs::remove_dir_all(data(&server).join("versions/shop/1")).unwrap();
    let server = server.start_again();
    let app_now = json_lines(&server.ok(&["--json", "versions", "ls"])).remove(0);
    assert!(app_now["trouble"].is_string(), "{app_now}");
    // Its number is not used again.
    assert_eq!(json_lines(&app.deploy(&server).ok())[0]["version"], 2);
    assert_eq!(answer(&server), "one");
}

#[test]
fn killed_by_whoever_deploys_the_deploy_goes_on() {
    let server = Server::start();
    let app = App::new("one");
    let gate = Gate::new();
    app.runs(&command(), &format!("build = \"{}\"\n", gate.shell()));
    let deploying = Talk::start(app.deploying(&server).stderr(Stdio::null()));
    gate.wait_for_arrival();
    deploying.signal(Signal::KILL);
    drop(deploying);
    gate.let_go();
    // The call waits for the function: nobody offers it yet, but it is being deployed.
    while json_lines(&server.ok(&["--json", "versions", "ls", "shop"]))[0]["active"].is_null() {
        std::thread::yield_now();
    }
    assert_eq!(answer(&server), "one");
}
