//! What a worker process prints: to the log line by line, the last lines kept for whoever asks why it ended.

use std::collections::VecDeque;
use std::sync::Arc;

use boki_wire::worker::Level;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::functions::Shared;
use crate::logs::{MAX_LINE_BYTES, Source};

/// So many lines of each process are kept apart from the log,
const LAST_LINES: usize = 20;
/// and so much of each.
const LAST_LINE_BYTES: usize = 500;

/// The last lines of one process.
#[derive(Debug, Default)]
pub(super) struct LastLines(Mutex<VecDeque<Arc<str>>>);

impl LastLines {
    fn add(&self, line: &str) {
        let line = line[..line.floor_char_boundary(LAST_LINE_BYTES)].trim_end();
        if line.is_empty() {
            return;
        }
        let mut lines = self.0.lock();
        if lines.len() >= LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.into());
    }

    pub(super) fn get(&self) -> Vec<Arc<str>> {
        self.0.lock().iter().cloned().collect()
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
    shared.logs.add(source, Level::Info, text.trim_end());
    line.clear();
}
