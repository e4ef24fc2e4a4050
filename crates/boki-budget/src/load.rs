//! What is counted: a whole server on one thread (and the log's), and a client that only writes bytes it has prepared and looks
//! for the ends of the answers.
//!
//! The client sends a round at once, in one write, and waits for all of its answers. So the server finds the same work in the same
//! pieces every time, and how threads are scheduled changes little.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use boki_log::batch::ReservedTags;
use boki_log::op::{Ack, Append, Consistency, Direction, Read};
use boki_log::{BatchBuilder, BookId, LogError, Position, Seq, Tag};
use boki_net::{Decoder, FrameBuf, FrameError, HEADER_BYTES};
use boki_sdk::{Cx, Worker};
use boki_server::{Config, Server};
use boki_wire::calls::DEFAULT_PRIORITY;
use boki_wire::{BookIs, BookOpen, Call, Hello, Message, Role, VERSION, kinds};
use bytes::Bytes;
use clap::ValueEnum;

/// How many operations a round has.
pub(crate) const OPERATIONS_PER_ROUND: u32 = 32;

const PAYLOAD_BYTES: usize = 1024;
const TAGS: u32 = 8;
const NOOP: &str = "noop";
/// All answers of a round together are shorter.
const LARGEST_ROUND_BYTES: usize = 1 << 20;
/// How long an answer may take, under valgrind on a busy machine, before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Load {
    /// Appends of 1 KiB under one tag, 32 in one group.
    Append,
    /// The same by the Rust library: what the library takes is counted too.
    LibraryAppend,
    /// Reads of the last record of a tag, from memory.
    Read,
    /// Calls of a function that does nothing; the worker's library is counted too.
    Call,
}

impl Load {
    pub(crate) const ALL: [Load; 4] = [Load::Append, Load::LibraryAppend, Load::Read, Load::Call];
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Load::Append => "append",
            Load::LibraryAppend => "library-append",
            Load::Read => "read",
            Load::Call => "call",
        })
    }
}

/// Why a load cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the server does not start: {0}")]
    Start(String),
    #[error("the library: {0}")]
    Library(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the server answered with a frame of kind {kind}: {body:?}")]
    Answer { kind: u8, body: Bytes },
}

/// Runs so many rounds of `load` against a server of its own.
pub(crate) fn run(load: Load, rounds: u32) -> Result<(), LoadError> {
    let folder = tempfile::tempdir()?;
    let mut config = Config::default();
    config.server.data = folder.path().join("data");
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let (started, address) = mpsc::channel();
    std::thread::Builder::new().name("server".to_owned()).spawn(move || serve(config, load == Load::Call, &started))?;
    let address = address.recv().map_err(|error| LoadError::Start(error.to_string()))?.map_err(LoadError::Start)?;
    if load == Load::LibraryAppend {
        return library_appends(address, rounds);
    }
    let mut client = Client::connect(address)?;
    let book = client.default_book()?;
    let (round, expected) = match load {
        Load::Append | Load::LibraryAppend => (frames(|number| append(book, number))?, kinds::APPENDED),
        Load::Read => {
            client.round(&frames(|number| append(book, number))?, kinds::APPENDED)?;
            (frames(|number| read(book, number))?, kinds::RECORDS)
        }
        Load::Call => (frames(|_| Ok(call()))?, kinds::CALL_RESULT),
    };
    for _ in 0..rounds {
        client.round(&round, expected)?;
    }
    Ok(())
}

/// Rounds of appends as a user would write them.
fn library_appends(address: SocketAddr, rounds: u32) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = |error: boki_sdk::Error| LoadError::Library(error.to_string());
    runtime.block_on(async {
        let client = boki_sdk::Client::connect(&address.to_string()).await.map_err(failed)?;
        let book = client.book("default").await.map_err(failed)?;
        let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
        for _ in 0..rounds {
            let mut in_flight = Vec::new();
            for number in 0..OPERATIONS_PER_ROUND {
                let append = book.append(payload.clone()).tag(tag(number)?.as_str());
                in_flight.push(append.send().await.map_err(failed)?);
            }
            for append in in_flight {
                append.await.map_err(failed)?;
            }
        }
        Ok(())
    })
}

/// Serves until the process ends.
fn serve(config: Config, with_worker: bool, started: &mpsc::Sender<Result<SocketAddr, String>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error.to_string()))),
    };
    runtime.block_on(async {
        let server = match Box::pin(Server::start(config)).await {
            Ok(server) => server,
            Err(error) => return drop(started.send(Err(error.to_string()))),
        };
        let address = server.local_addr();
        if !with_worker {
            let _ = started.send(Ok(address));
            return std::future::pending().await;
        }
        let worker = Worker::new().server(address.to_string()).function(NOOP, |_: Cx, (): ()| async { Ok(()) });
        let served = tokio::spawn(Box::pin(worker.serve()));
        // Calls of a function that no worker has offered yet would fail.
        while !server.functions().list().iter().any(|function| &*function.name == NOOP) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = started.send(Ok(address));
        let _ = served.await;
    });
}

struct Client {
    stream: TcpStream,
    /// What has arrived, up to `filled`.
    buf: Vec<u8>,
    filled: usize,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Client, LoadError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream, buf: vec![0; LARGEST_ROUND_BYTES], filled: 0 })
    }

    /// Greets the server, and asks it for the book that is always there.
    fn default_book(&mut self) -> Result<BookId, LoadError> {
        let mut frames = FrameBuf::new();
        frames.push_preamble();
        let hello = Hello { version: VERSION, role: Role::Client, name: "boki-budget".to_owned() };
        push(&mut frames, 0, &hello);
        push(&mut frames, 1, &BookOpen { name: "default".to_owned() });
        self.stream.write_all(&frames.into_bytes())?;
        self.answers(&[kinds::HELLO_OK, kinds::BOOK_IS])?;
        let mut decoder = Decoder::new(LARGEST_ROUND_BYTES);
        decoder.room().extend_from_slice(&self.buf[..self.filled]);
        decoder.next_frame()?;
        let answer = decoder.next_frame()?.ok_or(FrameError::Truncated)?;
        Ok(BookIs::decode(&answer.body)?.id)
    }

    fn round(&mut self, frames: &[u8], expected: u8) -> Result<(), LoadError> {
        self.stream.write_all(frames)?;
        self.answers(&[expected; OPERATIONS_PER_ROUND as usize])
    }

    /// Reads until `buf` holds frames of these kinds, and nothing else. Looks at no more of them than it must: the server is what is
    /// counted.
    fn answers(&mut self, kinds: &[u8]) -> Result<(), LoadError> {
        self.filled = 0;
        let mut at = 0;
        for expected in kinds {
            while self.filled < at + HEADER_BYTES {
                self.more()?;
            }
            let (len, kind) = ([0, 1, 2, 3].map(|byte| self.buf[at + byte]), self.buf[at + 4]);
            let len = u32::from_le_bytes(len);
            at += HEADER_BYTES + len as usize;
            if at > self.buf.len() {
                return Err(FrameError::TooLarge { len, limit: self.buf.len() }.into());
            }
            while self.filled < at {
                self.more()?;
            }
            if kind != *expected {
                return Err(LoadError::Answer { kind, body: Bytes::copy_from_slice(&self.buf[..at]) });
            }
        }
        Ok(())
    }

    fn more(&mut self) -> Result<(), LoadError> {
        match self.stream.read(&mut self.buf[self.filled..])? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            len => {
                self.filled += len;
                Ok(())
            }
        }
    }
}

/// A round, encoded.
fn frames<M: Message>(mut message: impl FnMut(u32) -> Result<M, LogError>) -> Result<Bytes, LogError> {
    let mut frames = FrameBuf::new();
    for number in 0..OPERATIONS_PER_ROUND {
        push(&mut frames, u64::from(number) + 1, &message(number)?);
    }
    Ok(frames.into_bytes())
}

fn push<M: Message>(frames: &mut FrameBuf, corr: u64, message: &M) {
    frames.push(M::KIND, 0, corr, |body| message.write(body));
}

fn tag(number: u32) -> Result<Tag, LogError> {
    Tag::new(format!("budget/{}", number % TAGS))
}

fn append(book: BookId, number: u32) -> Result<Append, LogError> {
    // Without an id of its own, or it would be done only once.
    let batch = BatchBuilder::new(book).record(vec![tag(number)?], Bytes::from(vec![7; PAYLOAD_BYTES])).build()?;
    Ok(Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused })
}

fn read(book: BookId, number: u32) -> Result<Read, LogError> {
    Ok(Read {
        book,
        tag: Some(tag(number)?),
        from: Seq::MAX,
        direction: Direction::Prev,
        limit: 1,
        consistency: Consistency::Session(Position::START),
        wait: None,
    })
}

fn call() -> Call {
    Call {
        function: NOOP.to_owned(),
        book: BookId::CATALOG,
        input: Bytes::from_static(b"null"),
        content_type: "application/json".to_owned(),
        position: Position::START,
        idempotency_key: None,
        deadline: None,
        detached: false,
        priority: DEFAULT_PRIORITY,
        limit_key: None,
        parent: 0,
    }
}
