//! What needs no server: help, usage errors, configuration, completions, new projects.

use serde_json::Value;

use crate::process::{BOKI, boki, run};

#[test]
fn help_is_there_for_every_command_and_has_examples() {
    for command in ["server", "call", "bench", "log append", "log read", "log follow", "books export", "config show"] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = run(&mut boki(&arguments)).ok();
        assert!(help.contains("Example"), "{command} has no example");
        assert!(help.contains("--json"), "{command}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    assert_eq!(run(&mut boki(&[])).code, 2);
    assert_eq!(run(&mut boki(&["logg"])).code, 2);
    let ended = run(&mut boki(&["log", "read", "--from", "x", "--json"]));
    assert_eq!(ended.code, 2);
    let error: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["error"]["code"], "BK0701");
}

#[test]
fn without_a_server_it_says_how_to_start_one() {
    // Nobody listens on a port that was just given back.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = run(&mut boki(&["log", "tail", "--server", &address])).failed(3, "BK0612");
    assert!(text.contains("boki dev"), "{text}");
    run(&mut boki(&["log", "tail", "--server", "https://x"])).failed(2, "BK0611");
    let ended = run(&mut boki(&["--json", "books", "ls", "--server", &address]));
    let error: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!((ended.code, &error["error"]["code"]), (3, &"BK0612".into()));
}

#[test]
fn input_of_a_call_must_be_json() {
    run(&mut boki(&["call", "f", "world"])).failed(2, "BK0701");
}

#[test]
fn configuration_is_checked_shown_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boki.toml");
    let path = file.to_str().unwrap();
    let config = |arguments: &[&str]| run(boki(&["config"]).args(arguments).current_dir(folder.path()));

    assert_eq!(config(&["check"]).ok(), "defaults: fine\n");
    std::fs::write(&file, "[log]\ncache = \"1MiB\"\n").unwrap();
    assert_eq!(config(&["check"]).ok(), "boki.toml: fine\n");
    assert!(config(&["show"]).ok().contains("cache = \"1MiB\""));
    let shown = run(boki(&["--json", "config", "show", "--config", path]).env("BOKI_LOG__CACHE", "2MiB")).ok();
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["log"]["cache"], "2MiB");

    std::fs::write(&file, "[log]\ncash = 1\n").unwrap();
    let text = config(&["check"]).failed(2, "BK0521");
    assert!(text.contains("boki.toml:2") && text.contains("cash"), "{text}");
    run(&mut boki(&["config", "check", "--config", "/nowhere.toml"])).failed(2, "BK0520");

    let schema: Value = serde_json::from_str(&run(&mut boki(&["config", "schema"])).ok()).unwrap();
    assert!(schema["properties"]["server"].is_object());
}

#[test]
fn what_is_shown_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let shown = run(boki(&["config", "show"]).current_dir(folder.path())).ok();
    std::fs::write(folder.path().join("boki.toml"), &shown).unwrap();
    let again = run(boki(&["config", "show"]).current_dir(folder.path())).ok();
    assert_eq!(shown, again);
}

#[test]
fn a_code_is_explained() {
    assert!(run(&mut boki(&["explain", "bk0201"])).ok().starts_with("# BK0201: "));
    let page: Value = serde_json::from_str(&run(&mut boki(&["--json", "explain", "BK0701"])).ok()).unwrap();
    assert_eq!(page["code"], "BK0701");
    run(&mut boki(&["explain", "BK9999"])).failed(2, "BK0701");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&mut boki(&["completions", shell])).ok();
        assert!(script.contains("functions") && script.contains("in-flight"), "{shell}");
    }
}

#[test]
fn a_new_project_in_python_names_its_sdk() {
    let folder = tempfile::tempdir().unwrap();
    run(boki(&["new", "shop", "--py"]).current_dir(folder.path())).ok();
    let shop = folder.path().join("shop");
    let requirements = std::fs::read_to_string(shop.join("requirements.txt")).unwrap();
    let sdk = requirements.lines().find(|line| line.starts_with('/')).unwrap();
    assert!(std::path::Path::new(sdk).join("src/boki/__init__.py").exists(), "{sdk}");
    for file in ["app.py", "test_app.py", "boki.toml", "README.md", ".gitignore"] {
        let text = std::fs::read_to_string(shop.join(file)).unwrap();
        assert!(!text.is_empty() && !text.contains("{{"), "{file}");
    }
    run(boki(&["config", "check"]).current_dir(&shop)).ok();
    run(boki(&["new", "other", "--py", "--sdk-path", "/nowhere"]).current_dir(folder.path())).failed(2, "BK0701");
}

#[test]
fn a_new_project_is_made_once_and_names_the_sdk() {
    let folder = tempfile::tempdir().unwrap();
    let new = |arguments: &[&str]| run(boki(&["new"]).args(arguments).current_dir(folder.path()));
    assert!(new(&["shop"]).ok().contains("cd shop && boki dev"));
    let shop = folder.path().join("shop");
    let manifest = std::fs::read_to_string(shop.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("name = \"shop\"") && !manifest.contains("{{"), "{manifest}");
    let crates: Vec<&str> = manifest.split("path = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(crates.len(), 2, "{manifest}");
    for path in crates {
        assert!(std::path::Path::new(path).join("src/lib.rs").exists(), "{path}");
    }
    for file in ["src/main.rs", "src/tests.rs", "boki.toml", "README.md", ".gitignore"] {
        let text = std::fs::read_to_string(shop.join(file)).unwrap();
        assert!(!text.is_empty() && !text.contains("{{"), "{file}");
    }
    run(boki(&["config", "check"]).current_dir(&shop)).ok();

    new(&["shop"]).failed(2, "BK0701");
    new(&["9 lives"]).failed(2, "BK0701");
    new(&["other", "--sdk-path", "/nowhere"]).failed(2, "BK0701");
    assert!(!folder.path().join("other").exists());
}

#[test]
fn tests_run_as_the_configuration_says_and_find_the_binary() {
    let folder = tempfile::tempdir().unwrap();
    let test = |arguments: &[&str]| run(boki(&["test"]).args(arguments).current_dir(folder.path()));
    test(&[]).failed(2, "BK0701");
    std::fs::write(folder.path().join("boki.toml"), "[test]\ncommand = \"printf '%s\\n' $BOKI_BIN\"\n").unwrap();
    assert_eq!(test(&["--", "a b", "c"]).ok(), format!("{BOKI}\na b\nc\n"));
    std::fs::write(folder.path().join("boki.toml"), "[test]\ncommand = \"exit 7;\"\n").unwrap();
    assert_eq!(test(&[]).code, 7);
}
