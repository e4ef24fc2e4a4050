//! Standard input and files, line by line, read ahead on a thread of their own.
//!
//! Memory is bounded: the thread waits while [`AHEAD`] lines are not taken yet.

use std::io::{self, BufRead};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Most lines that wait to be taken.
const AHEAD: usize = 4096;
/// Longest line, in bytes: more than any record that a server takes.
const MAX_LINE_BYTES: usize = 64 << 20;

/// The lines of an input.
#[derive(Debug)]
pub(crate) struct Lines {
    taken: mpsc::Receiver<io::Result<Bytes>>,
    name: String,
}

impl Lines {
    /// Begins to read `input`, which errors call `name`.
    pub(crate) fn read(name: &str, input: impl BufRead + Send + 'static) -> Result<Lines, Failure> {
        let (sender, taken) = mpsc::channel(AHEAD);
        thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || send_all(input, &sender))
            .map_err(|error| Failure::io("cannot start a thread", &error))?;
        Ok(Lines { taken, name: name.to_owned() })
    }

    pub(crate) fn stdin() -> Result<Lines, Failure> {
        Lines::read("standard input", io::BufReader::with_capacity(256 << 10, io::stdin()))
    }

    /// Waits for a line, then takes it and those that are there already, up to `most`. Empty: that was all.
    pub(crate) async fn gather(&mut self, most: usize) -> Result<Vec<Bytes>, Failure> {
        let mut lines = Vec::new();
        self.taken.recv_many(&mut lines, most).await;
        lines
            .into_iter()
            .collect::<io::Result<_>>()
            .map_err(|error| Failure::io(format!("cannot read {}", self.name), &error))
    }
}

/// Until the end of the input, an error, or the other side has gone.
fn send_all(mut input: impl BufRead, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let line = next_line(&mut input).transpose();
        let Some(line) = line else { return };
        let is_last = line.is_err();
        if sender.blocking_send(line).is_err() || is_last {
            return;
        }
    }
}

/// The next line without its end; `None` at the end of the input.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Bytes>> {
    let mut line = Vec::new();
    loop {
        let (taken, is_complete) = {
            let buf = match input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buf => buf?,
            };
            let end = buf.iter().position(|byte| *byte == b'\n');
            let part = &buf[..end.unwrap_or(buf.len())];
            if line.len() + part.len() > MAX_LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 MiB"));
            }
            if part.is_empty() && end.is_none() {
                return Ok(if line.is_empty() { None } else { Some(line.into()) });
            }
            line.extend_from_slice(part);
            (part.len() + usize::from(end.is_some()), end.is_some())
        };
        input.consume(taken);
        if is_complete {
            return Ok(Some(line.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_and_at_the_end() {
        for capacity in [1, 2, 3, 100] {
            let mut input = io::BufReader::with_capacity(capacity, &b"a\n\nbc\r\nlast"[..]);
            let mut lines = Vec::new();
            while let Some(line) = next_line(&mut input).unwrap() {
                lines.push(line);
            }
            assert_eq!(lines, ["a", "", "bc\r", "last"]);
        }
        assert_eq!(next_line(&mut &b""[..]).unwrap(), None);
    }
}
