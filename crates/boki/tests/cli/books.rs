//! `boki books`.

use crate::process::{Server, json_lines, run, run_with};

#[test]
fn books_come_and_go() {
    let server = Server::start();
    server.ok(&["books", "new", "orders"]);
    run(&mut server.boki(&["books", "new", "orders"])).failed(1, "BK0111");
    let names: Vec<_> =
        json_lines(&server.ok(&["--json", "books", "ls"])).iter().map(|book| book["name"].clone()).collect();
    assert_eq!(names, ["default", "orders"]);
    assert!(server.ok(&["books", "ls"]).contains("orders"));
    // Nobody is there to be asked.
    let text = run(&mut server.boki(&["books", "rm", "orders"])).failed(2, "BK0701");
    assert!(text.contains("--yes"), "{text}");
    server.ok(&["books", "rm", "orders", "--yes"]);
    run(&mut server.boki(&["books", "rm", "orders", "--yes"])).failed(5, "BK0110");
}

#[test]
fn an_exported_book_can_be_imported() {
    let server = Server::start();
    let lines: String = (0..3000).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    run_with(&mut server.boki(&["log", "append", "--tag", "t"]), lines.as_bytes()).ok();
    run_with(&mut server.boki(&["log", "append", "--input", "raw"]), b"\xff").ok();
    let file = server.folder.path().join("export.jsonl");
    let file = file.to_str().unwrap();
    let said = json_lines(&server.ok(&["--json", "books", "export", "default", file])).remove(0);
    assert_eq!(said["records"], 3001);
    assert_eq!(std::fs::read_to_string(file).unwrap(), server.ok(&["books", "export", "default"]));

    server.ok(&["books", "import", "copy", file]);
    assert_eq!(server.ok(&["log", "read", "--book", "copy", "--tag", "t", "--raw"]), lines);
    assert!(server.ok(&["log", "read", "--book", "copy", "--prev", "--limit", "1"]).contains("base64:/w=="));
    run(&mut server.boki(&["books", "import", "copy", file])).failed(1, "BK0704");

    let piped = run_with(
        &mut server.boki(&["--json", "books", "import", "piped"]),
        b"{\"tags\":[\"~x\"],\"data\":1}\n{\"data\":2}\n",
    );
    let said = json_lines(&piped.ok()).remove(0);
    assert_eq!((&said["records"], &said["left_out"]), (&1.into(), &1.into()));
}

#[test]
fn what_is_no_export_is_refused() {
    let server = Server::start();
    let text = run_with(&mut server.boki(&["books", "import", "x"]), b"hello\n").failed(2, "BK0701");
    assert!(text.contains("line 1"), "{text}");
    run(&mut server.boki(&["books", "import", "y", "/nowhere.jsonl"])).failed(1, "BK0702");
    assert!(!server.ok(&["books", "ls"]).contains('y'));
    run(&mut server.boki(&["books", "export", "nobody"])).failed(5, "BK0110");
}
