//! A server in virtual time, as programs in any language use it.

use serde_json::{Value, json};

use crate::process::{Server, Talk, boki, run, server_in};
use rustix::process::Signal;

const START: &str = "2030-01-01T00:00:00Z";
const START_US: u64 = 1_893_456_000_000_000;

fn post(address: &str, path: &str, body: &Value) -> (u16, Value) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap())
}

#[test]
fn time_stands_still_until_it_is_moved_and_records_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Talk::start(server_in(folder.path()).args(["--json", "--virtual-time", START]));
    let ready: Value = serde_json::from_str(&server.line()).unwrap();
    let address = ready["address"].as_str().unwrap();
    let append = |text: &str| run(&mut boki(&["log", "append", text, "--server", address])).ok();
    append("first");
    let (status, time) = post(address, "/v1/time/advance", &json!({"by": "36h"}));
    assert_eq!((status, time["time_us"].as_u64()), (200, Some(START_US + 36 * 3600 * 1_000_000)));
    assert_eq!(time["time"], "2030-01-02T12:00:00.000000Z");
    append("second");
    let records = run(&mut boki(&["--json", "log", "read", "--server", address])).ok();
    let times: Vec<u64> = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["time_us"].as_u64().unwrap() - START_US)
        .collect();
    assert_eq!(times, [0, 36 * 3600 * 1_000_000]);
    // What ends it by the clock ends it all the same.
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 0);
}

#[test]
fn the_time_of_any_other_server_is_real() {
    let server = Server::start();
    let (status, problem) = post(server.address(), "/v1/time/advance", &json!({"by": "1h"}));
    assert_eq!((status, problem["code"].as_str()), (409, Some("BK0428")));
}
