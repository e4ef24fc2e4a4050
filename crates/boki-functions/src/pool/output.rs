//! What a worker process prints: to the log line by line, as far as its budget goes, and the last lines kept for whoever asks
//! why it ended. Its pipes are always read, whatever it prints.

use std::collections::VecDeque;
use std::sync::Arc;

use boki_wire::worker::Level;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::time::Instant;

use crate::flood::{LogBudget, LogRate};
use crate::functions::Shared;
use crate::logs::{MAX_LINE_BYTES, Source};

/// So many lines of each process are kept apart from the log,
const LAST_LINES: usize = 20;
/// and so much of each.
const LAST_LINE_BYTES: usize = 500;

/// The last lines of one process.
#[derive(Debug)]
pub(super) struct LastLines {
    lines: Mutex<VecDeque<Arc<str>>>,
    /// How much it may log, over its connection too.
    pub(super) budget: Arc<Mutex<LogBudget>>,
}

impl LastLines {
    pub(super) fn new(rate: LogRate) -> LastLines {
        let budget = Arc::new(Mutex::new(LogBudget::new(rate, Instant::now())));
        LastLines { lines: Mutex::default(), budget }
    }

    pub(super) fn add(&self, line: &str) {
        let line = line[..line.floor_char_boundary(LAST_LINE_BYTES)].trim_end();
        if line.is_empty() {
            return;
        }
        let mut lines = self.lines.lock();
        if lines.len() >= LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.into());
    }

    pub(super) fn get(&self) -> Vec<Arc<str>> {
        self.lines.lock().iter().cloned().collect()
    }
}

/// Hands a process's output to the log, line by line, until it ends.
pub(super) async fn copy_lines(
    output: impl AsyncRead + Unpin,
    worker: Arc<str>,
    version: Arc<str>,
    last: Arc<LastLines>,
    shared: Arc<Shared>,
) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        let (taken, ended) = match output.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let part = &bytes[..end.unwrap_or(bytes.len())];
                // What is beyond the longest line is dropped, up to the line's end.
                let room = MAX_LINE_BYTES.saturating_sub(line.len()).min(part.len());
                line.extend_from_slice(&part[..room]);
                (end.map_or(bytes.len(), |end| end + 1), end.is_some())
            }
        };
        output.consume(taken);
        if ended {
            log_line(&shared, &worker, &version, &last, &mut line);
        }
    }
    if !line.is_empty() {
        log_line(&shared, &worker, &version, &last, &mut line);
    }
}

fn log_line(shared: &Shared, worker: &Arc<str>, version: &Arc<str>, last: &LastLines, line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line);
    last.add(&text);
    let source = Source { worker, version, call: None, function: None };
    shared.log_of_worker(&last.budget, source, Level::Info, text.trim_end());
    line.clear();
}
