//! What is found, in words and as data.

use std::fmt;
use std::path::PathBuf;

use boki_disk::{BlobName, DirError};
use serde::Serialize;

/// Why a directory cannot be examined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// It is in use, is not a data directory, or cannot be entered.
    #[error(transparent)]
    Directory(#[from] DirError),
    /// It holds nothing that says which directory it is: neither `meta` nor any segment.
    #[error("{}: neither meta nor any segment says which data directory this is", .0.display())]
    Nameless(PathBuf),
    /// The file system refused.
    #[error("cannot {what} {name}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file, relative to the data directory.
        name: String,
        /// The system's word for it.
        source: std::io::Error,
    },
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is lost, and nothing need be done.
    Note,
    /// What was written is not there.
    Damage,
}

/// What a finding is about, for who mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The file `FORMAT`.
    Format,
    /// The file `meta`.
    Meta,
    /// The record of removed segments.
    Removed,
    /// The record of how far the journal reaches.
    Reach,
    /// A segment of the journal.
    Segment(u64),
    /// The checkpoint.
    Checkpoint,
    /// A blob.
    Blob(#[serde(serialize_with = "as_text")] BlobName),
    /// A table of the index.
    Table(u64),
    /// Something that lies in the directory and has no meaning there.
    Stray,
}

fn as_text<S: serde::Serializer>(name: &BlobName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// Records that cannot be read any more, or may not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lost {
    /// Number of the book; `None`: it cannot be told in which books they were.
    pub book: Option<u64>,
    /// Its name, if it was found.
    pub name: Option<String>,
    /// The first seq.
    pub from: u64,
    /// The last seq; `None`: all from there on.
    pub to: Option<u64>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) if to == self.from => write!(f, "seq {to}")?,
            Some(to) => write!(f, "seqs {} to {to}", self.from)?,
            None => write!(f, "everything from seq {} on", self.from)?,
        }
        match (&self.name, self.book) {
            (Some(name), _) => write!(f, " in the book {name}"),
            (None, Some(0)) => f.write_str(" in the catalog of books"),
            (None, Some(book)) => write!(f, " in the book with the number {book}"),
            (None, None) => f.write_str(", of whatever book"),
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The error code that explains it.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to the data directory.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What that means.
    pub means: String,
    /// What to do.
    pub remedy: String,
    /// Which records are concerned. They may have been trimmed before.
    pub lost: Vec<Lost>,
    /// What it is about.
    pub subject: Subject,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Segments of the journal.
    pub segments: u64,
    /// Groups in them.
    pub groups: u64,
    /// Blobs.
    pub blobs: u64,
    /// Tables of the index.
    pub tables: u64,
    /// Bytes of all that.
    pub bytes: u64,
}

/// What an examination found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The data directory.
    pub path: PathBuf,
    /// Its id, in hexadecimal.
    pub id: String,
    /// How much was looked at.
    pub checked: Totals,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// What this examination could not tell.
    pub unknown: Vec<String>,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}
