//! `boki dev`: code is loaded, and loaded again when it changes.

use std::process::Stdio;

use rustix::process::Signal;

use crate::process::{BOKI, Talk, boki};

/// The next thing that was loaded, and by which process.
fn loaded(dev: &mut Talk) -> (u64, u64) {
    let line: serde_json::Value = serde_json::from_str(&dev.line()).unwrap();
    assert_eq!(line["functions"], serde_json::json!(["noop"]), "{line}");
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
    let called = crate::process::run(boki(&["call", "noop", "7"]).env("BOKI_URL", address)).ok();
    assert_eq!(called, "7\n");
    std::fs::write(source.join("app"), "3").unwrap();
    assert_eq!(loaded(&mut dev).0, 3);
    assert!(folder.path().join(".boki").exists());

    dev.signal(Signal::TERM);
    assert_eq!(dev.end(), 0);
}
