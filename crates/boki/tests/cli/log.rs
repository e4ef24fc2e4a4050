//! `boki log` with pipes.

use std::process::Stdio;

use crate::process::{Server, Talk, json_lines, run, run_with};

#[test]
fn lines_that_go_in_come_out_in_order() {
    let server = Server::start();
    let lines: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    let seqs = run_with(&mut server.boki(&["log", "append", "--tag", "a", "-t", "b"]), lines.as_bytes()).ok();
    let seqs: Vec<u64> = seqs.lines().map(|seq| seq.parse().unwrap()).collect();
    assert_eq!(seqs.len(), 5000);
    assert!(seqs.is_sorted_by(|a, b| a < b));
    assert_eq!(server.ok(&["log", "read", "--tag", "b", "--raw"]), lines);
    assert_eq!(server.ok(&["log", "tail", "--tag", "a"]), format!("{}\n", seqs[4999]));
    let backwards = server.ok(&["log", "read", "--prev", "--limit", "1500", "--raw"]);
    let expected: String = lines.lines().rev().take(1500).map(|line| format!("{line}\n")).collect();
    assert_eq!(backwards, expected);
}

#[test]
fn a_line_is_appended_when_it_comes() {
    let server = Server::start();
    let mut append = Talk::start(&mut server.boki(&["log", "append"]));
    let mut follow = Talk::start(&mut server.boki(&["log", "follow", "--from", "1", "--raw"]));
    for text in ["one", "two", "three"] {
        append.say(text);
        let seq = append.line();
        assert!(seq.parse::<u64>().is_ok(), "{seq}");
        assert_eq!(follow.line(), text);
    }
    assert_eq!(append.end(), 0);
}

#[test]
fn any_payload_survives_json() {
    let server = Server::start();
    let payloads: [&[u8]; 6] = [b"{\"a\": 1.0}", b"text", b"two\nlines", b"\xff\xfe\x00", b"", b"null"];
    for payload in payloads {
        run_with(&mut server.boki(&["log", "append", "--input", "raw", "--tag", "t"]), payload).ok();
    }
    let records = server.ok(&["--json", "log", "read"]);
    assert_eq!(records.lines().count(), payloads.len());
    server.ok(&["books", "new", "copy"]);
    run_with(&mut server.boki(&["log", "append", "--book", "copy", "--input", "records"]), records.as_bytes()).ok();
    let fields = |records: &str| -> Vec<serde_json::Value> {
        let keep = |mut record: serde_json::Value| {
            let record = record.as_object_mut().unwrap();
            record.retain(|name, _| name != "seq" && name != "time_us");
            record.clone().into()
        };
        json_lines(records).into_iter().map(keep).collect()
    };
    let copied = server.ok(&["--json", "log", "read", "--book", "copy"]);
    assert_eq!(fields(&records), fields(&copied));
    assert_eq!(fields(&copied)[3]["base64"], "//4A");

    // For people, each record stays on one line.
    let text = server.ok(&["log", "read"]);
    assert_eq!(text.lines().count(), payloads.len());
    assert!(text.contains(r"two\nlines") && text.contains("base64://4A"), "{text}");
}

#[test]
fn conditions_decide_and_say_why() {
    let server = Server::start();
    let first = server.ok(&["log", "append", "1", "--tag", "x", "--if-tail", "x=0"]).trim().to_owned();
    let text = run(&mut server.boki(&["log", "append", "2", "--tag", "x", "--if-tail", "x=0"])).failed(4, "BK0201");
    assert!(text.contains(&format!("is {first}, not 0")) && text.contains("--tag x"), "{text}");
    let ended = run(&mut server.boki(&["--json", "log", "append", "2", "--tag", "x", "--if-tail", "x=0"]));
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["error"]["actual"].to_string(), first);
    server.ok(&["log", "append", "2", "--tag", "x", "--if-tail", &format!("x={first}")]);

    server.ok(&["log", "append", "mine", "--raise", "lock=2"]);
    run(&mut server.boki(&["log", "append", "late", "--fence", "lock=1"])).failed(4, "BK0202");

    // All of a batch, or none.
    let batch = &["log", "append", "--batch", "--if-tail", "x=0"];
    run_with(&mut server.boki(batch), b"a\nb\n").failed(4, "BK0201");
    assert_eq!(server.ok(&["log", "read", "--raw"]), "1\n2\nmine\n");
    run_with(&mut server.boki(&["log", "append", "--if-tail", "x=0"]), b"a\n").failed(2, "BK0701");
}

#[test]
fn an_id_is_appended_once() {
    let server = Server::start();
    let append = ["--json", "log", "append", "once", "--id", "0123456789abcdef0123456789abcdef"];
    let answers: Vec<_> = (0..2).map(|_| json_lines(&server.ok(&append)).remove(0)).collect();
    assert_eq!(answers[0]["seq"], answers[1]["seq"]);
    assert_eq!((&answers[0]["repeated"], &answers[1]["repeated"]), (&false.into(), &true.into()));
    assert_eq!(server.ok(&["log", "read", "--raw"]), "once\n");
}

#[test]
fn a_bad_line_stops_the_stream_and_is_named() {
    let server = Server::start();
    let input = b"{\"text\":\"good\"}\n{\"text\":1}\n";
    let text = run_with(&mut server.boki(&["log", "append", "--input", "records"]), input).failed(2, "BK0701");
    assert!(text.contains("line 2"), "{text}");
}

#[test]
fn tags_are_listed_and_trimmed() {
    let server = Server::start();
    let last =
        ["a/1", "a/2", "b/1", "a/2"].map(|tag| server.ok(&["log", "append", "x", "--tag", tag]).trim().to_owned());
    let tags = json_lines(&server.ok(&["--json", "log", "tags", "--prefix", "a/"]));
    let tags: Vec<_> = tags.iter().map(|tag| (tag["tag"].as_str().unwrap(), tag["last"].to_string())).collect();
    assert_eq!(tags, [("a/1", last[0].clone()), ("a/2", last[3].clone())]);
    server.ok(&["log", "trim", "--tag", "a/2", "--below", &last[3]]);
    assert_eq!(server.ok(&["log", "read", "--tag", "a/2", "--raw"]).lines().count(), 1);
    server.ok(&["log", "trim", "--below", &(last[3].parse::<u64>().unwrap() + 1).to_string()]);
    assert_eq!(server.ok(&["log", "tail"]), "0\n");
    assert_eq!(server.ok(&["log", "tags"]), "");
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let server = Server::start();
    let lines = "a long line that fills the pipe and the buffers before it\n".repeat(20_000);
    run_with(&mut server.boki(&["log", "append"]), lines.as_bytes()).ok();
    let mut read = Talk::start(server.boki(&["log", "read"]).stderr(Stdio::piped()));
    assert!(!read.line().is_empty());
    let ended = read.hang_up();
    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
}

#[test]
fn a_missing_book_is_5() {
    let server = Server::start();
    let text = run(&mut server.boki(&["log", "read", "--book", "nosuch"])).failed(5, "BK0110");
    assert!(text.contains("boki books new nosuch"), "{text}");
}
