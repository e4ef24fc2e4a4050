//! `boki dev`: code is loaded, and loaded again when it changes.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::deploy::app::{Gate, command};
use crate::process::{BOKI, Talk, boki, run};

/// The next thing that was loaded, and by which process.
fn loaded(dev: &mut Talk) -> (u64, u64) {
    let line: serde_json::Value = serde_json::from_str(&dev.line()).unwrap();
    assert_eq!(line["functions"], json!(["echo", "noop", "outer", "work"]), "{line}");
    (line["loaded"].as_u64().unwrap(), line["pid"].as_u64().unwrap())
}

#[test]
fn a_change_replaces_the_worker_if_it_builds() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src");
    std::fs::create_dir(&source).unwrap();
    // The build fails while the source says so.
    let build = "! grep -q broken src/app";
    let config = format!("[dev]\nbuild = \"{build}\"\ncommand = \"{BOKI} bench-worker\"\nwatch = [\"src\"]\n");
    std::fs::write(folder.path().join("boki.toml"), config).unwrap();
    std::fs::write(source.join("app"), "1").unwrap();
    let mut command = boki(&["--json", "dev", "--listen", "127.0.0.1:0"]);
    command
        .current_dir(folder.path())
        .env("BOKI_TELEMETRY__LEVEL", "error")
        .env("PATH", std::env::var("PATH").unwrap());
    command.stderr(Stdio::piped());
    let mut dev = Talk::start(&mut command);
    let ready: serde_json::Value = serde_json::from_str(&dev.line()).unwrap();
    let address = ready["address"].as_str().unwrap();

    let (version, first) = loaded(&mut dev);
    assert_eq!(version, 1);
    std::fs::write(source.join("app"), "2").unwrap();
    let (version, second) = loaded(&mut dev);
    assert_eq!(version, 2);
    assert_ne!(first, second);

    // What does not build changes nothing; what is right again is loaded.
    std::fs::write(source.join("app"), "broken").unwrap();
    dev.wait_for_error_line("the build failed");
    let called = run(boki(&["call", "noop", "7"]).env("BOKI_URL", address)).ok();
    assert_eq!(called, "7\n");
    std::fs::write(source.join("app"), "3").unwrap();
    assert_eq!(loaded(&mut dev).0, 3);
    assert!(folder.path().join(".boki").exists());

    dev.signal(Signal::TERM);
    assert_eq!(dev.end(), 0);
}

#[test]
fn calls_that_run_finish_on_the_old_code_and_new_ones_go_to_the_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The worker ends at once while there is a file `broken`.
    let run_unless_broken = format!("/bin/sh -c \"test ! -e broken && {}\"", command());
    std::fs::write(path("boki.toml"), format!("[dev]\ncommand = '''{run_unless_broken}'''\n")).unwrap();
    std::fs::write(path("code"), "one").unwrap();
    std::fs::write(path(".gitignore"), "notes\n").unwrap();
    let mut starting = boki(&["--json", "dev", "--listen", "127.0.0.1:0"]);
    starting.current_dir(folder.path()).env("BOKI_TELEMETRY__LEVEL", "error").stderr(Stdio::piped());
    let mut dev = Talk::start(starting.env("PATH", std::env::var("PATH").unwrap()));
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let ready = value(&dev.line());
    let address = ready["address"].as_str().unwrap();
    let call = |arguments: &[&str]| run(boki(&["call"]).args(arguments).env("BOKI_URL", address)).ok();
    assert_eq!(value(&dev.line())["loaded"], 1);
    assert_eq!(call(&["code"]), "\"one\"\n");

    let gate = Gate::new();
    let input = json!(gate.path()).to_string();
    let mut held = Talk::start(boki(&["call", "hold", &input]).env("BOKI_URL", address));
    gate.wait_for_arrival();
    // What is ignored changes nothing; the next line is of the change behind it. As careful editors do, it is renamed.
    std::fs::write(path("notes"), "x").unwrap();
    std::fs::write(path(".code.new"), "two").unwrap();
    std::fs::rename(path(".code.new"), path("code")).unwrap();
    let loaded = value(&dev.line());
    assert_eq!(loaded["loaded"], 2);
    assert!(loaded["reload_ms"].is_u64(), "{loaded}");
    for _ in 0..20 {
        assert_eq!(call(&["code"]), "\"two\"\n");
    }
    // Code that does not start changes nothing either.
    std::fs::write(path("broken"), "").unwrap();
    dev.wait_for_error_line("the code does not start");
    assert_eq!(call(&["code"]), "\"two\"\n");
    gate.let_go();
    assert_eq!(held.line(), "\"one\"");
    dev.signal(Signal::TERM);
    assert_eq!(dev.end(), 0);
}
