//! The client: one connection, and what can be asked over it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use boki_log::{BookId, Position};
use boki_wire::worker::CallId;
use boki_wire::{BookCreate, BookIs, BookOpen, BookRemove, CallWait, Role};

use crate::address::Address;
use crate::answer::Answer;
use crate::book::{Book, BookInfo};
use crate::call::{Call, CallOutput};
use crate::connection::{connect, keep_connected};
use crate::error::{Error, Result};
use crate::options::ConnectOptions;
use crate::payload::IntoPayload;
use crate::question::Question;
use crate::session::{Lease, Session, WorkerSide};

/// Stands for the server's default book in a call.
const DEFAULT_BOOK: BookId = BookId(0);

/// A function that the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name.
    pub name: String,
    /// One line for humans; may be empty.
    pub description: String,
    /// How many connected workers offer it.
    pub workers: u32,
    /// Calls that run now.
    pub running: u32,
    /// Calls that wait for a worker.
    pub queued: u32,
    /// How often a call is tried at most.
    pub max_attempts: u32,
    /// How long a call may take unless the caller says otherwise.
    pub timeout: Duration,
}

/// A connection to a server, opened again by itself when it breaks. Clones share it; it ends with the last of
/// them and of their books.
#[derive(Clone)]
pub struct Client {
    lease: Arc<Lease>,
}

impl Client {
    /// Connects to `127.0.0.1:2654`, `unix:/path` and the like (see [`Address`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`], [`Error::Connect`], or what the server says.
    pub async fn connect(address: &str) -> Result<Client> {
        Client::connect_with(ConnectOptions::new(address)?).await
    }

    /// Connects as `options` say.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(options: ConnectOptions) -> Result<Client> {
        Client::start(options, Role::Client, None).await
    }

    /// Connects as a worker: frames of the worker link go to `side`, and it shares the connection with this client.
    #[allow(dead_code, reason = "the worker half is the one user")]
    pub(crate) async fn connect_as_worker(options: ConnectOptions, side: Arc<dyn WorkerSide>) -> Result<Client> {
        Client::start(options, Role::Worker, Some(side)).await
    }

    async fn start(options: ConnectOptions, role: Role, side: Option<Arc<dyn WorkerSide>>) -> Result<Client> {
        let (link, hello) = connect(&options, role).await?;
        let session = Arc::new(Session::new(options, side, &hello));
        let lease = Arc::new(Lease(Arc::clone(&session)));
        tokio::spawn(keep_connected(session, link));
        Ok(Client { lease })
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.session().options.address
    }

    /// The book of that name. Its session is that of every other handle of the book from this client.
    ///
    /// # Errors
    /// [`LogError::BookNotFound`](boki_log::LogError::BookNotFound) among others.
    pub async fn book(&self, name: &str) -> Result<Book> {
        let question = Question::BookOpen(BookOpen { name: name.to_owned() });
        self.book_from(self.session().answer(question, None).await?)
    }

    /// Makes a book.
    ///
    /// # Errors
    /// [`LogError::BookExists`](boki_log::LogError::BookExists) among others.
    pub async fn create_book(&self, name: &str) -> Result<Book> {
        let question = Question::BookCreate(BookCreate { name: name.to_owned() });
        self.book_from(self.session().answer(question, None).await?)
    }

    /// Removes a book and everything in it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn remove_book(&self, name: &str) -> Result<()> {
        let question = Question::BookRemove(BookRemove { name: name.to_owned() });
        match self.session().answer(question, None).await? {
            Answer::BookRemoved => Ok(()),
            _ => Err(Error::unexpected("not one to removing a book")),
        }
    }

    /// Every book, by name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn books(&self) -> Result<Vec<BookInfo>> {
        match self.session().answer(Question::BookList, None).await? {
            Answer::Books(books) => Ok(books.books.into_iter().map(info).collect()),
            _ => Err(Error::unexpected("not one to listing books")),
        }
    }

    /// A book with a session of its own, which has seen `position`: what runs inside a call reads and writes there.
    #[must_use]
    pub fn book_at(&self, id: BookId, name: &str, position: Position) -> Book {
        let position = Arc::new(AtomicU64::new(position.0.0));
        Book::new(Arc::clone(&self.lease), id, name.into(), position)
    }

    /// Calls a function, in the server's default book unless the call says otherwise.
    pub fn call(&self, function: impl Into<String>, input: impl IntoPayload) -> Call {
        let position = self.session().position(DEFAULT_BOOK);
        Call::new(Arc::clone(&self.lease), function.into(), input.into_payload(), DEFAULT_BOOK, position)
    }

    /// The result of a call that is on record in `book`; waits up to `wait` for it. `None`: there is none yet.
    ///
    /// # Errors
    /// The call's own, among others.
    pub async fn call_result(&self, book: &Book, call: CallId, wait: Option<Duration>) -> Result<Option<CallOutput>> {
        self.wait_for_call(book.id(), call, wait, book.seen()).await
    }

    /// The same, of a call in the server's default book.
    ///
    /// # Errors
    /// The call's own, among others.
    pub async fn default_call_result(&self, call: CallId, wait: Option<Duration>) -> Result<Option<CallOutput>> {
        self.wait_for_call(DEFAULT_BOOK, call, wait, self.session().position(DEFAULT_BOOK)).await
    }

    async fn wait_for_call(
        &self,
        book: BookId,
        call: CallId,
        wait: Option<Duration>,
        seen: Arc<AtomicU64>,
    ) -> Result<Option<CallOutput>> {
        let question = Question::CallWait(CallWait { book, call, wait });
        match self.session().answer(question, Some(seen)).await? {
            Answer::CallResult(result) => Ok(Some(result.into())),
            Answer::CallPending => Ok(None),
            _ => Err(Error::unexpected("not one to waiting for a call's result")),
        }
    }

    /// Asks the server for nothing but an answer: that it is there, and, by the time this takes, how far away.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ping(&self) -> Result<()> {
        match self.session().answer(Question::Ping, None).await? {
            Answer::Pong => Ok(()),
            _ => Err(Error::unexpected("not one to a ping")),
        }
    }

    /// Every function that the server knows, by name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn functions(&self) -> Result<Vec<FunctionInfo>> {
        let Answer::Functions(functions) = self.session().answer(Question::FunctionList, None).await? else {
            return Err(Error::unexpected("not one to listing functions"));
        };
        let functions = functions.functions.into_iter().map(|function| FunctionInfo {
            name: function.name,
            description: function.description,
            workers: function.workers,
            running: function.running,
            queued: function.queued,
            max_attempts: function.max_attempts,
            timeout: Duration::from_millis(function.timeout_ms),
        });
        Ok(functions.collect())
    }

    /// Ends the connection for all clones. What is open fails with [`Error::Closed`].
    pub fn close(&self) {
        self.session().close();
    }

    fn book_from(&self, answer: Answer) -> Result<Book> {
        match answer {
            Answer::Book(book) => {
                let position = self.session().position(book.id);
                Ok(Book::new(Arc::clone(&self.lease), book.id, book.name.into(), position))
            }
            _ => Err(Error::unexpected("not a book")),
        }
    }

    fn session(&self) -> &Arc<Session> {
        &self.lease.0
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address())
    }
}

fn info(book: BookIs) -> BookInfo {
    BookInfo { id: book.id, name: book.name, created_us: book.created_us }
}
