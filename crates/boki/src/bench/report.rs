//! The results: figures, and the ratios that can be compared between machines.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fairness::{ALONE, BESIDE};
use super::index::Growth;
use super::latency::Measured;
use super::machine::Pace;
use super::stream::Streamed;
use super::workloads::{APPEND, CALL, CONNECTIONS, Figure, HTTP_APPEND, Idle, PING, READ};
use crate::cli::BenchOptions;
use crate::failure::Failure;
use crate::output::aligned;

/// Everything that one run has measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) options: BenchOptions,
    /// The machine's, over the whole time.
    pub(crate) pace: Pace,
    pub(crate) stream_bytes_per_second: f64,
    pub(crate) figures: Vec<Figure>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) streamed: Vec<Streamed>,
    pub(crate) growth: Growth,
    pub(crate) beside: Vec<Beside>,
}

/// A figure of another system, measured on the same machine in the same hour.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Beside {
    /// The system and what it did.
    name: String,
    /// How many at once.
    in_flight: u32,
    per_second: f64,
    p50_us: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
    /// The one figure it is compared with; all appends with as many at once, unless it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    against: Option<String>,
}

impl Beside {
    fn is_like(&self, figure: &Figure) -> bool {
        let workload = &*figure.workload;
        figure.in_flight == self.in_flight
            && self.against.as_deref().map_or(matches!(workload, APPEND | HTTP_APPEND), |against| against == workload)
    }
}

/// One figure over another.
#[derive(Debug)]
struct Ratio {
    name: String,
    value: f64,
}

/// Reads what [`BenchOptions::beside`] names.
pub(crate) fn read_beside(path: &Path) -> Result<Vec<Beside>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(serde_json::from_str).collect::<Result<_, _>>().map_err(|error| {
        Failure::input(
            format!("{}: {error}", path.display()),
            "each line is {\"name\",\"in_flight\",\"per_second\",\"p50_us\"}",
        )
    })
}

const HEAD: [&str; 9] =
    ["what", "at once", "per second", "p50 us", "p90 us", "p99 us", "max us", "server us/op", "load us/op"];

impl Report {
    pub(crate) fn to_table(&self) -> String {
        let mut text = aligned(&HEAD, &self.rows());
        let _ = write!(text, "\n\n{}", self.machine_line());
        for idle in &self.idle {
            let _ = write!(text, "\n{}", idle_line(idle));
        }
        for streamed in &self.streamed {
            let _ = write!(text, "\n{}", stream_line(streamed));
        }
        for line in self.growth.lines() {
            let _ = write!(text, "\n{line}");
        }
        let ratios: Vec<_> =
            self.ratios().iter().map(|ratio| vec![format!("{:.2}", ratio.value), ratio.name.clone()]).collect();
        let _ = write!(text, "\n\n{}", aligned(&["ratio", ""], &ratios));
        text
    }

    pub(crate) fn to_markdown(&self) -> String {
        let mut text = markdown(&HEAD, &self.rows());
        let _ = write!(text, "\n{}\n", self.machine_line());
        for idle in &self.idle {
            let _ = write!(text, "\n{}\n", idle_line(idle));
        }
        for streamed in &self.streamed {
            let _ = write!(text, "\n{}\n", stream_line(streamed));
        }
        for line in self.growth.lines() {
            let _ = write!(text, "\n{line}\n");
        }
        let ratios: Vec<_> =
            self.ratios().iter().map(|ratio| vec![ratio.name.clone(), format!("{:.2}", ratio.value)]).collect();
        let _ = write!(text, "\n{}", markdown(&["ratio", ""], &ratios));
        text.trim_end().to_owned()
    }

    pub(crate) fn to_json(&self) -> Value {
        let figures: Vec<_> = self.figures.iter().map(figure_json).collect();
        let ratios: Vec<_> =
            self.ratios().iter().map(|ratio| json!({ "name": ratio.name, "value": ratio.value })).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "size": self.options.size,
            "seconds": self.options.seconds,
            "machine": {
                "cores": cores(),
                "round_trip_us": self.pace.round_trip.quantile_us(0.5),
                "round_trip_p99_us": self.pace.round_trip.quantile_us(0.99),
                "sync_us": self.pace.sync.quantile_us(0.5),
                "sync_p99_us": self.pace.sync.quantile_us(0.99),
                "stream_bytes_per_second": self.stream_bytes_per_second,
            },
            "figures": figures,
            "idle": self.idle.iter().map(|idle| json!({
                "functions": idle.functions,
                "called": idle.called,
                "resident_bytes": idle.resident_bytes,
                "cpu_share": idle.cpu_share,
                "sleeps_per_second": idle.sleeps_per_second,
                "first_answer_ms": idle.first_answer.map(|time| time.as_secs_f64() * 1000.0),
            })).collect::<Vec<_>>(),
            "streamed": self.streamed.iter().map(|streamed| json!({
                "bytes": streamed.bytes,
                "seconds": streamed.over.as_secs_f64(),
                "bytes_per_second": streamed.bytes_per_second(),
                "server_cpu_seconds": streamed.server_cpu.map(|cpu| cpu.as_secs_f64()),
                "resident_bytes_before": streamed.resident_bytes.map(|(before, _)| before),
                "resident_bytes_peak": streamed.resident_bytes.map(|(_, most)| most),
            })).collect::<Vec<_>>(),
            "growth": self.growth.to_json(),
            "beside": self.beside,
            "ratios": ratios,
        })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let own = self.figures.iter().map(|figure| {
            let Measured { latencies, server_cpu, client_cpu, .. } = &figure.measured;
            let per_op =
                |cpu: std::time::Duration| format!("{:.1}", cpu.as_secs_f64() * 1e6 / latencies.count() as f64);
            let mut row = vec![
                figure.workload.clone(),
                figure.in_flight.to_string(),
                format!("{:.0}", figure.measured.per_second()),
            ];
            row.extend([0.5, 0.9, 0.99].map(|quantile| format!("{:.0}", latencies.quantile_us(quantile))));
            row.push(format!("{:.0}", latencies.max_us()));
            row.extend([server_cpu, client_cpu].map(|cpu| cpu.map_or_else(|| "-".to_owned(), per_op)));
            row
        });
        let beside = self.beside.iter().map(|figure| {
            let none = || "-".to_owned();
            let p99 = figure.p99_us.map_or_else(none, |p99| format!("{p99:.0}"));
            let (per_second, p50) = (format!("{:.0}", figure.per_second), format!("{:.0}", figure.p50_us));
            vec![
                figure.name.clone(),
                figure.in_flight.to_string(),
                per_second,
                p50,
                none(),
                p99,
                none(),
                none(),
                none(),
            ]
        });
        own.chain(beside).collect()
    }

    fn machine_line(&self) -> String {
        let Pace { round_trip, sync } = &self.pace;
        format!(
            "machine: {} cores; loopback round trip of {} bytes p50 {:.0} us, p99 {:.0} us; 4 KiB write and fdatasync p50 {:.0} us, \
             p99 {:.0} us; synced 256 KiB writes {:.0} MB/s",
            cores(),
            self.options.size,
            round_trip.quantile_us(0.5),
            round_trip.quantile_us(0.99),
            sync.quantile_us(0.5),
            sync.quantile_us(0.99),
            self.stream_bytes_per_second / 1e6,
        )
    }

    fn ratios(&self) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        let mut add = |name: String, over: f64, under: f64| {
            if under > 0.0 {
                ratios.push(Ratio { name, value: over / under });
            }
        };
        for figure in &self.figures {
            let p50 = figure.measured.latencies.quantile_us(0.5);
            let (round_trip, sync) = (figure.pace.round_trip.quantile_us(0.5), figure.pace.sync.quantile_us(0.5));
            let what = format!("{}, {} at once", figure.workload, figure.in_flight);
            match (&*figure.workload, figure.in_flight) {
                (APPEND | HTTP_APPEND, 1) => {
                    add(format!("{what}: p50 / (loopback round trip + fdatasync)"), p50, round_trip + sync);
                }
                (READ, 1) => add(format!("{what}: p50 / loopback round trip"), p50, round_trip),
                (CALL, 1) => add(format!("{what}: p50 / two loopback round trips"), p50, 2.0 * round_trip),
                (APPEND | CONNECTIONS | HTTP_APPEND, _) => {
                    let per_second = figure.measured.per_second();
                    add(format!("{what}: per second / syncs per second of one writer"), per_second, 1e6 / sync);
                }
                _ => {}
            }
        }
        for read in self.figures.iter().filter(|figure| figure.workload == READ) {
            let is_its_echo = |figure: &&Figure| figure.workload == PING && figure.in_flight == read.in_flight;
            if let Some(ping) = self.figures.iter().find(is_its_echo) {
                let [over, under] = [read, ping].map(|figure| figure.measured.latencies.quantile_us(0.5));
                add(format!("{READ}, {} at once: p50 / {PING}", read.in_flight), over, under);
            }
        }
        let p99 = |workload| self.figures.iter().find(|figure| figure.workload == workload).map(p99_us);
        if let (Some(alone), Some(beside)) = (p99(ALONE), p99(BESIDE)) {
            add("p99 of a call beside another key's backlog / p99 alone".to_owned(), beside, alone);
        }
        let appends = self.figures.iter().filter(|figure| figure.workload == APPEND);
        let most = appends.map(|figure| figure.measured.per_second()).fold(0.0, f64::max);
        if most > 0.0 {
            let bytes = most * f64::from(self.options.size);
            add(
                "most payload bytes appended per second / synced 256 KiB writes".to_owned(),
                bytes,
                self.stream_bytes_per_second,
            );
        }
        for other in &self.beside {
            for figure in &self.figures {
                if other.is_like(figure) {
                    let what =
                        format!("{}, {} at once: per second / {}", figure.workload, figure.in_flight, other.name);
                    add(what, figure.measured.per_second(), other.per_second);
                }
            }
        }
        ratios
    }
}

fn p99_us(figure: &Figure) -> f64 {
    figure.measured.latencies.quantile_us(0.99)
}

fn figure_json(figure: &Figure) -> Value {
    let Measured { latencies, over, server_cpu, client_cpu } = &figure.measured;
    let per_op = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / latencies.count() as f64;
    json!({
        "workload": figure.workload,
        "in_flight": figure.in_flight,
        "count": latencies.count(),
        "seconds": over.as_secs_f64(),
        "per_second": figure.measured.per_second(),
        "p50_us": latencies.quantile_us(0.5),
        "p90_us": latencies.quantile_us(0.9),
        "p99_us": latencies.quantile_us(0.99),
        "max_us": latencies.max_us(),
        "server_cpu_us": server_cpu.map(per_op),
        "load_cpu_us": client_cpu.map(per_op),
        "round_trip_us": figure.pace.round_trip.quantile_us(0.5),
        "sync_us": figure.pace.sync.quantile_us(0.5),
    })
}

fn idle_line(idle: &Idle) -> String {
    let functions = match (idle.functions, idle.called) {
        (0, _) => String::new(),
        (functions, 0) => format!(", {functions} functions"),
        (functions, called) => format!(", {functions} functions of which {called} were called"),
    };
    let mut line = format!(
        "idle{functions}: {:.1} MB resident, {:.2} % of one core, {:.1} wake-ups per second",
        idle.resident_bytes as f64 / 1e6,
        idle.cpu_share * 100.0,
        idle.sleeps_per_second,
    );
    if let Some(time) = idle.first_answer {
        let _ = write!(line, "; first answer {:.0} ms after the start", time.as_secs_f64() * 1000.0);
    }
    line
}

fn stream_line(streamed: &Streamed) -> String {
    let mut line = format!(
        "stream: {:.0} MB through a function and back in {:.2} s, {:.0} MB/s each way",
        streamed.bytes as f64 / 1e6,
        streamed.over.as_secs_f64(),
        streamed.bytes_per_second() / 1e6,
    );
    if let Some((before, most)) = streamed.resident_bytes {
        let _ =
            write!(line, "; server {:.1} MB resident before, {:.1} MB at most", before as f64 / 1e6, most as f64 / 1e6);
    }
    if let Some(cpu) = streamed.server_cpu {
        let _ = write!(line, "; {:.2} s of processor time with the worker", cpu.as_secs_f64());
    }
    line
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Rows as a Markdown table: the first column is text, the others are numbers.
fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---|{}\n", head.join(" | "), "---:|".repeat(head.len().saturating_sub(1)));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_markdown_table_has_a_cell_for_every_column() {
        let text = markdown(&["a", "b"], &[vec!["x".to_owned(), "1".to_owned()]]);
        assert_eq!(text, "| a | b |\n|---|---:|\n| x | 1 |\n");
    }
}
