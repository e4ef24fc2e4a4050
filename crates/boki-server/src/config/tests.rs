use super::*;

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::from_text("boki.toml", text, env)
}

fn refused(text: &str, env: &[(&str, &str)]) -> String {
    load(text, env).unwrap_err().to_string()
}

#[test]
fn nothing_set_is_the_defaults() {
    assert_eq!(load("", &[]).unwrap(), Config::default());
    assert_eq!(Config::default().server.listen.to_string(), "127.0.0.1:2654");
    assert_eq!(Config::default().limits.log(), boki_log::Limits::default());
}

#[test]
fn every_section_can_be_set() {
    let config = load(
        r#"
        [dev]
        command = "cargo run"
        [server]
        listen = "[::1]:0"
        durability = "memory"
        shutdown_grace = "2s"
        [limits]
        record = "1MiB"
        http_body = 4096
        [log]
        segment = "32MiB"
        [[worker]]
        name = "app"
        command = "./app"
        env = { A = "b" }
        processes = 2
        cpu = 1.5
        [[mount]]
        path = "/shop"
        function = "web"
        methods = ["GET"]
        origins = ["https://app.example:8443", "http://[::1]"]
        [functions]
        timeout = "5m"
        [calls]
        cancel_grace = "3s"
        [telemetry]
        format = "json"
        "#,
        &[],
    )
    .unwrap();
    assert_eq!(config.server.durability, Durability::Memory);
    assert_eq!(config.limits.log().record_bytes, 1 << 20);
    assert_eq!(config.limits.http_body, Size(4096));
    assert_eq!(config.worker[0].env["A"], "b");
    assert_eq!((config.mount[0].path.as_str(), config.mount[0].book.as_str()), ("/shop", "default"));
    assert_eq!(config.functions.timeout.0.as_secs(), 300);
    assert_eq!(config.worker[0].cpu, Some(Cores(1500)));
    assert_eq!(config.calls.cancel_grace.0.as_secs(), 3);
    assert_eq!(config.telemetry.format, LogFormat::Json);
}

#[test]
fn a_number_of_cores_has_bounds_and_stays_what_it_is() {
    let worker = |cpu: &str| format!("[[worker]]\nname = \"w\"\ncommand = \"w\"\ncpu = {cpu}\n");
    for (cpu, thousandths) in [("0.01", 10), ("2.0", 2000), ("2", 2000), ("0.3", 300), ("1000", 1_000_000)] {
        let config = load(&worker(cpu), &[]).unwrap();
        assert_eq!(config.worker[0].cpu, Some(Cores(thousandths)), "{cpu}");
        let again = serde_json::to_value(&config.worker[0]).unwrap();
        assert_eq!(serde_json::from_value::<WorkerSection>(again).unwrap(), config.worker[0]);
    }
    for cpu in ["0", "-1", "0.009", "1000.5", "nan", "inf", "'2'"] {
        assert!(refused(&worker(cpu), &[]).contains("cpu"), "{}", refused(&worker(cpu), &[]));
    }
    assert!(refused("[calls]\ncancel_grace = '0s'", &[]).contains("calls.cancel_grace"));
}

#[test]
fn the_environment_overrides_the_file() {
    let env = [
        ("BOKI_SERVER__LISTEN", "127.0.0.1:99"),
        ("BOKI_LIMITS__CONNECTIONS", "7"),
        ("BOKI_LIMITS__RECORD", "2MiB"),
        ("BOKI_DEV__COMMAND", "123"),
        ("BOKI_SERVER__INSECURE", "true"),
        ("BOKI_URL", "not a setting"),
        ("PATH", "/bin"),
    ];
    let config = load("[server]\nlisten = \"127.0.0.1:1\"\ndata = \"/d\"\n", &env).unwrap();
    assert_eq!(config.server.listen.port(), 99);
    assert_eq!(config.server.data, Path::new("/d"));
    assert_eq!(config.limits.connections, 7);
    assert_eq!(config.limits.record, Size::mib(2));
    assert_eq!(config.dev.command.as_deref(), Some("123"));
    assert!(config.server.insecure);
}

#[test]
fn an_unknown_key_names_file_line_and_what_is_allowed() {
    let error = load("[server]\ndata = \"x\"\nlisten_on = \"y\"\n", &[]).unwrap_err();
    assert_eq!(error.code(), "BK0521");
    let text = error.to_string();
    assert!(text.starts_with("boki.toml:3: server.listen_on: unknown field `listen_on`, expected one of"), "{text}");
    assert!(text.contains("`shutdown_grace`") && text.ends_with("\n    listen_on = \"y\""), "{text}");
}

#[test]
fn a_wrong_value_says_what_is_allowed() {
    for (text, expected) in [
        ("[server]\nlisten = \"localhost\"\n", "boki.toml:2: server.listen: invalid address \"localhost\", expected"),
        (
            "[server]\ndurability = \"maybe\"\n",
            "boki.toml:2: server.durability: unknown variant `maybe`, expected `fsync` or `memory`",
        ),
        (
            "[functions]\n\ntimeout = 5\n",
            "boki.toml:3: functions.timeout: invalid type: integer `5`, expected a duration with a unit",
        ),
        (
            "[limits]\nrecord = \"big\"\n",
            "boki.toml:2: limits.record: invalid value: string \"big\", expected a size such as",
        ),
        ("[limits]\nrecord = -1\n", "boki.toml:2: limits.record: invalid value: integer `-1`, expected a size"),
        ("[limits]\nrecord_tags = 300\n", "boki.toml:2: limits.record_tags: invalid value: integer `300`"),
        ("[server\n", "boki.toml:1: "),
        ("[cluster]\n", "boki.toml:1: [cluster]: unknown field `cluster`, expected one of `dev`"),
        ("[[worker]]\nname = \"a\"\n", "boki.toml:1: [worker]: missing field `command`"),
    ] {
        let error = refused(text, &[]);
        assert!(error.starts_with(expected), "{error:?} should start with {expected:?}");
    }
}

#[test]
fn values_that_do_not_fit_each_other_are_refused() {
    for (text, expected) in [
        ("[limits]\nrecord = \"8MiB\"\nbatch = \"8MiB\"\n", "boki.toml:3: limits.batch: it must be larger"),
        ("[log]\nsegment = \"1MiB\"\n", "boki.toml:2: log.segment: it must be at least 1MiB larger"),
        ("[limits]\nconnections = 0\n", "boki.toml:2: limits.connections: it must be at least 1"),
        (
            "[[limit]]\nname = \"a\"\nmatch = \"call:*\"\nrate = \"fast\"\n",
            "boki.toml:4: limit.rate: a rate is a number, a slash and a time",
        ),
        ("[[limit]]\nname = \"a\"\nmatch = \"call:*\"\n", "limit.concurrency: a limit sets at least one of"),
        (
            "[[worker]]\nname = \"a\"\ncommand = \"x\"\n[[worker]]\nname = \"a\"\ncommand = \"y\"\n",
            "boki.toml:2: worker.name: two workers",
        ),
    ] {
        let error = refused(text, &[]);
        assert!(error.starts_with(expected), "{error:?} should start with {expected:?}");
    }
    let error = refused("", &[("BOKI_LIMITS__CONNECTIONS", "0")]);
    assert!(error.starts_with("environment variable BOKI_LIMITS__CONNECTIONS: limits.connections"), "{error}");
}

#[test]
fn a_mount_that_cannot_be_is_refused() {
    let mount = |path: &str, rest: &str| format!("[[mount]]\npath = \"{path}\"\nfunction = \"web\"\n{rest}");
    for (path, expected) in [
        ("shop", "must begin with a slash"),
        ("/shop/", "none at the end"),
        ("/a//b", "none at the end"),
        ("/a/../b", "must be segments"),
        ("/a b", "must be segments"),
        ("/v1", "/v1 is the server's own"),
        ("/v1/shop", "/v1 is the server's own"),
        ("/call", "/call is the server's own"),
        ("/healthz", "/healthz is the server's own"),
    ] {
        let error = refused(&mount(path, ""), &[]);
        assert!(error.starts_with("boki.toml:2: mount.path: ") && error.contains(expected), "{error}");
    }
    for path in ["/", "/shop", "/v2/shop", "/calls", "/a/v1", "/~ada/x.y_z"] {
        load(&mount(path, ""), &[]).unwrap();
    }
    for (rest, expected) in [
        ("methods = [\"get\"]", "mount.methods: \"get\" is not a method"),
        ("book = \"\"", "mount.book: it is empty"),
        ("origins = [\"app.example\"]", "mount.origins: \"app.example\" is not an origin"),
        ("origins = [\"https://app.example/\"]", "is not an origin"),
        ("origins = [\"*\", \"https://app.example\"]", "\"*\" stands alone"),
        ("origin = \"*\"", "unknown field `origin`"),
        (&mount("/shop", ""), "\"/shop\" is mounted twice"),
    ] {
        let error = refused(&mount("/shop", rest), &[]);
        assert!(error.contains(expected), "{error}");
    }
    assert!(refused("", &[("BOKI_MOUNT__PATH", "/x")]).contains("in the file only"));
}

#[test]
fn a_wrong_variable_is_named() {
    let error = refused("", &[("BOKI_SERVER__PORT", "1")]);
    assert!(
        error.starts_with("environment variable BOKI_SERVER__PORT=1: unknown field `port`, expected one of"),
        "{error}"
    );
    let error = refused("", &[("BOKI_LIMITS__RECORD", "big")]);
    assert!(error.contains("expected a size such as"), "{error}");
    assert!(refused("", &[("BOKI_WORKER__NAME", "x")]).contains("in the file only"));
}

#[test]
fn an_open_address_must_be_asked_for() {
    let error = load("[server]\nlisten = \"0.0.0.0:2654\"\n", &[]).unwrap_err();
    assert_eq!(error.code(), "BK0522");
    assert!(load("[server]\nlisten = \"0.0.0.0:2654\"\ninsecure = true\n", &[]).is_ok());
}

#[test]
fn a_missing_file_is_an_error() {
    let error = Config::load(Some(Path::new("/nonexistent/boki.toml")), []).unwrap_err();
    assert_eq!(error.code(), "BK0520");
    assert!(error.to_string().starts_with("cannot read /nonexistent/boki.toml: "));
}

#[test]
fn what_is_shown_reads_back_the_same() {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:7".parse().unwrap();
    config.functions.timeout = Span(std::time::Duration::from_millis(1500));
    assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config);
}

#[test]
fn the_schema_has_every_key_with_its_documentation() {
    let schema = Config::schema();
    let shown: serde_json::Value = serde_json::to_value(Config::default()).unwrap();
    for (section, keys) in shown.as_object().unwrap() {
        let property = &schema["properties"][section];
        assert!(property.is_object(), "section {section}");
        let Some(keys) = keys.as_object() else { continue };
        let reference = property["$ref"].as_str().unwrap();
        let name = reference.rsplit('/').next().unwrap();
        for key in keys.keys() {
            let described = &schema["$defs"][name]["properties"][key]["description"];
            assert!(described.is_string(), "{section}.{key} has no description in the schema");
        }
    }
}

/// The lines of a section in `docs/configuration.md`.
fn documented<'a>(page: &'a str, section: &str) -> Vec<&'a str> {
    let heads = [format!("## [{section}]"), format!("## [[{section}]]")];
    let mut lines = page.lines().skip_while(|line| !heads.iter().any(|head| head == line));
    lines.next().unwrap_or_else(|| panic!("no section {section}"));
    lines.take_while(|line| !line.starts_with("## ")).collect()
}

#[test]
fn the_documentation_has_every_key_with_its_default() {
    let page = include_str!("../../../../docs/configuration.md");
    let mut config = Config::default();
    let worker = "name = \"a\"\ncommand = \"b\"";
    config.worker.push(toml::from_str(worker).unwrap());
    config.mount.push(toml::from_str("path = \"/a\"\nfunction = \"b\"").unwrap());
    let limit =
        "name = \"a\"\nmatch = \"b\"\nkey = \"c\"\nconcurrency = 1\nrate = \"1/s\"\nburst = 1\nweight = 1\nqueue = 1";
    config.limit.push(toml::from_str(limit).unwrap());
    let retention = "book = \"a\"\ntag = \"b\"\nmax_age = \"1s\"\nmax_records = 1\nmax_bytes = 1";
    config.retention.push(toml::from_str(retention).unwrap());
    let shown: serde_json::Value = serde_json::to_value(config).unwrap();
    for (section, keys) in shown.as_object().unwrap() {
        let lines = documented(page, section);
        let keys = keys.as_array().map_or(keys, |workers| &workers[0]).as_object().unwrap();
        for (key, value) in keys {
            let row = lines.iter().find(|line| line.starts_with(&format!("| `{key}` |")));
            let row = row.unwrap_or_else(|| panic!("{section}.{key} is not documented"));
            let default = row.split('|').nth(2).unwrap().trim();
            let is_given = default.starts_with('`') && !value.is_null() && !(section == "server" && key == "socket");
            assert!(!is_given || default == format!("`{value}`"), "{section}.{key} is {value}, not {default}");
        }
        let rows = lines.iter().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, keys.len(), "{section} documents keys that are not there");
    }
}

#[test]
fn rules_of_retention_are_checked() {
    let reason = |rules: &str| Config::from_text("", rules, []).unwrap_err().to_string();
    let rule = |rest: &str| format!("[[retention]]\n{rest}\n");
    assert!(reason(&rule("book = \"a\"")).contains("bounds nothing"));
    assert!(reason(&rule("book = \"\"\nmax_records = 1")).contains("retention.book"));
    assert!(reason(&rule("book = \"a\"\ntag = \"~b\"\nmax_records = 1")).contains("retention.tag"));
    let twice = rule("book = \"a\"\nmax_records = 1").repeat(2);
    assert!(reason(&twice).contains("two rules"));
    assert!(Config::from_text("", &rule("book = \"a*\"\nmax_age = \"7d\""), []).is_ok());
}
