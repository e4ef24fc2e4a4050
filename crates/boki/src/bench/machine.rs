//! What the machine itself does, so that everything else can be said as a ratio to it: a round trip over
//! loopback, a synced write, a stream of synced writes.
//!
//! No part of Boki is used here, and no async runtime.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::latency::Latencies;
use super::process::OwnProcess;
use crate::failure::Failure;

/// The file of the synced writes, 4 KiB each.
const SYNC_FILE_BYTES: u64 = 16 << 20;
const SYNC_WRITE_BYTES: usize = 4096;
/// The file of the stream of writes.
const STREAM_FILE_BYTES: u64 = 32 << 20;
const STREAM_WRITE_BYTES: usize = 256 << 10;

/// How fast the machine was just then. The disks of virtual machines change from minute to minute, so it is taken
/// again and again.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// A message of the payload's size to another process over loopback TCP and back.
    pub(crate) round_trip: Latencies,
    /// `pwrite` of 4 KiB and `fdatasync`, into a file that is filled with zeros.
    pub(crate) sync: Latencies,
}

impl Pace {
    pub(crate) fn merge(&mut self, other: &Pace) {
        self.round_trip.merge(&other.round_trip);
        self.sync.merge(&other.sync);
    }
}

/// Measures the machine's pace, as often as it is asked.
#[derive(Debug)]
pub(crate) struct Meter {
    stream: TcpStream,
    // After the stream: the process ends when that is closed.
    _echo: OwnProcess,
    message: Vec<u8>,
    file: File,
    next_place: u64,
}

impl Meter {
    /// For messages of `payload` bytes, and the disk that `dir` is on.
    pub(crate) fn new(dir: &Path, payload: usize) -> Result<Meter, Failure> {
        let file = zeroed_file(dir, SYNC_FILE_BYTES, OFlags::empty()).map_err(|error| in_dir(dir, &error))?;
        let mut echo = OwnProcess::start("the echo process", &["bench-echo"], &[])?;
        let address = echo.line()?;
        let connect = || {
            let stream = TcpStream::connect(&address)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| Failure::io(format!("cannot reach {address}"), &error))?;
        Ok(Meter { stream, _echo: echo, message: vec![0x5a; payload.max(1)], file, next_place: 0 })
    }

    /// Measures, each of the two for about `each`.
    pub(crate) fn pace(&mut self, each: Duration) -> Result<Pace, Failure> {
        let round_trip =
            self.round_trips(each).map_err(|error| Failure::io("the echo process does not answer", &error))?;
        let sync = self.syncs(each).map_err(|error| Failure::io("cannot measure the disk", &error))?;
        Ok(Pace { round_trip, sync })
    }

    fn round_trips(&mut self, each: Duration) -> io::Result<Latencies> {
        let mut back = vec![0; self.message.len()];
        let mut latencies = Latencies::new();
        let warm = Instant::now() + each / 10;
        let until = Instant::now() + each;
        loop {
            let begin = Instant::now();
            self.stream.write_all(&self.message)?;
            self.stream.read_exact(&mut back)?;
            let end = Instant::now();
            if begin >= warm {
                latencies.add(end - begin);
            }
            if end >= until && latencies.count() > 0 {
                return Ok(latencies);
            }
        }
    }

    fn syncs(&mut self, each: Duration) -> io::Result<Latencies> {
        let block = vec![0x5a; SYNC_WRITE_BYTES];
        let places = SYNC_FILE_BYTES / SYNC_WRITE_BYTES as u64;
        let mut latencies = Latencies::new();
        let until = Instant::now() + each;
        loop {
            let begin = Instant::now();
            self.file.write_all_at(&block, self.next_place * SYNC_WRITE_BYTES as u64)?;
            self.file.sync_data()?;
            let end = Instant::now();
            latencies.add(end - begin);
            self.next_place = (self.next_place + 1) % places;
            if end >= until {
                return Ok(latencies);
            }
        }
    }
}

fn in_dir(dir: &Path, error: &io::Error) -> Failure {
    Failure::io(format!("cannot measure the disk in {}", dir.display()), error)
}

/// A new file without a name, filled with zeros that are on disk, so that no later write allocates.
fn zeroed_file(dir: &Path, bytes: u64, flags: OFlags) -> io::Result<File> {
    let named = tempfile::NamedTempFile::new_in(dir)?;
    let file = OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(named.path())?;
    let zeros = vec![0; 1 << 20];
    let mut plain = named.as_file();
    for _ in 0..bytes >> 20 {
        plain.write_all(&zeros)?;
    }
    plain.sync_all()?;
    Ok(file)
}

/// Bytes per second of 256 KiB writes, each on disk when it returns, measured for about `each`.
pub(crate) fn stream_bytes_per_second(dir: &Path, each: Duration) -> Result<f64, Failure> {
    stream(dir, each).map_err(|error| in_dir(dir, &error))
}

fn stream(dir: &Path, each: Duration) -> io::Result<f64> {
    let file = zeroed_file(dir, STREAM_FILE_BYTES, OFlags::DSYNC)?;
    let block = vec![0x5a; STREAM_WRITE_BYTES];
    let places = STREAM_FILE_BYTES / STREAM_WRITE_BYTES as u64;
    let begin = Instant::now();
    for number in 0.. {
        file.write_all_at(&block, number % places * STREAM_WRITE_BYTES as u64)?;
        if begin.elapsed() >= each {
            return Ok(((number + 1) * STREAM_WRITE_BYTES as u64) as f64 / begin.elapsed().as_secs_f64());
        }
    }
    Ok(0.0)
}

/// The hidden command `bench-echo`: says its address, then sends back whatever one connection sends, and ends with it.
pub(crate) fn echo() -> Result<(), Failure> {
    let serve = || {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        println!("{}", listener.local_addr()?);
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut buf = vec![0; 1 << 20];
        loop {
            match stream.read(&mut buf)? {
                0 => return Ok(()),
                len => stream.write_all(&buf[..len])?,
            }
        }
    };
    serve().map_err(|error: io::Error| Failure::io("the echo process failed", &error))
}
