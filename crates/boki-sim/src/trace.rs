//! What happened, line by line: always hashed, so that two runs can be compared; printed if asked for.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use boki_log::NodeId;
use boki_log::message::Message;

use crate::rng::{FNV_START, fnv};

/// See the module's description.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    printed: bool,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(printed: bool) -> Trace {
        Trace { hash: FNV_START, lines: 0, printed }
    }

    /// A line: at which virtual time, which node, what.
    pub fn note(&mut self, now_us: u64, node: NodeId, what: fmt::Arguments<'_>) {
        self.lines += 1;
        for byte in now_us.to_le_bytes().into_iter().chain(node.0.to_le_bytes()) {
            self.hash = fnv(self.hash, byte);
        }
        // Hashing cannot fail.
        let _ = Hashing(&mut self.hash).write_fmt(what);
        if self.printed {
            // Whoever reads may have read enough.
            self.printed = writeln!(io::stdout().lock(), "{:>9} {:>4}  {what}", now_us, node.to_string()).is_ok();
        }
    }

    /// Hash of all lines.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

struct Hashing<'a>(&'a mut u64);

impl fmt::Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        *self.0 = text.bytes().fold(*self.0, fnv);
        Ok(())
    }
}

/// A message in few words.
#[derive(Debug)]
pub struct Brief<'a>(pub &'a Message);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Replicate { shard, first, batch } => {
                write!(f, "replicate {shard} {first} +{}", batch.record_count())
            }
            Message::Batches { shard, first, batches } => write!(f, "batches {shard} {first}, {}", batches.len()),
            Message::Cuts(cuts) => {
                f.write_str("cuts")?;
                cuts.iter().take(4).try_for_each(|cut| write!(f, " #{} {}..{}", cut.index, cut.start, cut.end()))?;
                if cuts.len() > 4 { write!(f, " and {} more", cuts.len() - 4) } else { Ok(()) }
            }
            other => write!(f, "{other:?}"),
        }
    }
}
