//! `boki bench` measures what it says, briefly.

use serde_json::Value;

use crate::process::{Server, boki, run};

const BRIEFLY: [&str; 4] = ["--seconds", "0.2", "--warm-up", "0.05"];

fn bench(arguments: &[&str]) -> Value {
    serde_json::from_str(&run(boki(&["--json", "bench"]).args(arguments).args(BRIEFLY)).ok()).unwrap()
}

#[test]
fn every_load_gives_figures_and_ratios() {
    for (arguments, workloads) in [
        (&["append", "--in-flight", "1,8"][..], &["append", "append"][..]),
        (&["read", "--in-flight", "1"], &["ping on the same connection", "read last of a tag"]),
        (&["http", "--clients", "1,8"], &["HTTP append", "HTTP append"]),
        (&["call", "--clients", "1,8"], &["HTTP call of a no-op", "HTTP call of a no-op"]),
    ] {
        let result = bench(arguments);
        let figures = result["figures"].as_array().unwrap();
        assert_eq!(figures.len(), workloads.len(), "{workloads:?}");
        for (figure, workload) in figures.iter().zip(workloads) {
            assert_eq!(figure["workload"], *workload);
            assert!(figure["count"].as_u64().unwrap() > 0 && figure["p50_us"].as_f64().unwrap() > 0.0, "{figure}");
        }
        assert!(result["machine"]["sync_us"].as_f64().unwrap() > 0.0);
        assert!(result["machine"]["round_trip_us"].as_f64().unwrap() > 0.0);
        assert!(result["ratios"].as_array().unwrap().iter().all(|ratio| ratio["value"].as_f64().unwrap() > 0.0));
    }
}

#[test]
fn one_key_is_measured_beside_the_backlog_of_another() {
    let result = bench(&["fairness", "--backlog", "2000"]);
    assert_eq!(result["figures"].as_array().unwrap().len(), 2);
    let ratio = &result["ratios"][0];
    assert!(ratio["name"].as_str().unwrap().starts_with("p99 of a call beside another key's backlog"), "{ratio}");
    assert!(ratio["value"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_idle_server_is_watched() {
    let result = bench(&["idle", "--window", "0.1"]);
    let idle = &result["idle"][0];
    assert!(idle["resident_bytes"].as_u64().unwrap() > 0, "{result}");
    assert!(idle["first_answer_ms"].as_f64().unwrap() > 0.0, "{result}");
}

#[test]
fn a_running_server_can_be_measured_and_others_stand_beside_it() {
    let server = Server::start();
    let beside = server.folder.path().join("beside");
    std::fs::write(&beside, "{\"name\":\"other\",\"in_flight\":4,\"per_second\":10.0,\"p50_us\":100.0}\n").unwrap();
    let arguments = ["append", "--in-flight", "4", "--server", server.address(), "--beside", beside.to_str().unwrap()];
    let result = bench(&arguments);
    assert!(result["ratios"].as_array().unwrap().iter().any(|ratio| ratio["name"].as_str().unwrap().contains("other")));
    assert_ne!(server.ok(&["log", "tail"]), "0\n");

    let table = run(boki(&["bench"]).args(arguments).args(BRIEFLY).args(["--format", "markdown"])).ok();
    assert!(table.starts_with("| what |") && table.contains("| other |"), "{table}");
}

#[test]
fn a_load_that_fails_gives_no_figures() {
    let server = Server::with_config("[limits]\nrecord = \"100B\"\n");
    let arguments = ["http", "--clients", "2", "--server", server.address()];
    let text = run(boki(&["bench"]).args(arguments).args(BRIEFLY)).failed(1, "BK0703");
    assert!(text.contains("413"), "{text}");
}
