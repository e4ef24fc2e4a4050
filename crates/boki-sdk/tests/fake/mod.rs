//! A server that does what the test tells it: it greets by itself, and leaves every question to the test.
#![allow(dead_code, reason = "each test file uses a part of it")]

use boki_log::op::{Append, Appended};
use boki_log::{Position, Seq};
use boki_net::{Close, Config, Connection, Frame, Outbox};
use boki_sdk::{Client, ConnectOptions};
use boki_wire::{BookIs, BookOpen, Hello, HelloOk, Message};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub(crate) const BOOK: boki_log::BookId = boki_log::BookId(12);

pub(crate) struct Fake {
    listener: TcpListener,
    max_in_flight: u32,
}

/// One client's connection.
pub(crate) struct Peer {
    pub(crate) outbox: Outbox,
    pub(crate) hello: Hello,
    frames: mpsc::UnboundedReceiver<Frame>,
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        Fake { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), max_in_flight: 16384 }
    }

    pub(crate) fn max_in_flight(mut self, max_in_flight: u32) -> Fake {
        self.max_in_flight = max_in_flight;
        self
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::new(&self.address()).unwrap()
    }

    /// Takes the next connection and greets.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.unwrap();
        let outbox = Outbox::new(64 << 20);
        let mut connection = Connection::accepted(stream, outbox.clone(), Config::accepting());
        let (sender, mut frames) = mpsc::unbounded_channel();
        tokio::spawn(async move { connection.run(&mut |frame: Frame| sender.send(frame)).await.map(|_| ()) });
        let frame = frames.recv().await.unwrap();
        assert_eq!(frame.kind, Hello::KIND);
        let hello = Hello::decode(&frame.body).unwrap();
        let peer = Peer { outbox, hello, frames };
        let max_in_flight = self.max_in_flight;
        peer.answer(0, &HelloOk { version: 1, max_in_flight, max_body: 32 << 20, name: "fake".into() });
        peer
    }

    /// A client and its connection.
    pub(crate) async fn client(&self) -> (Client, Peer) {
        let (client, peer) = tokio::join!(Client::connect_with(self.options()), self.accept());
        (client.unwrap(), peer)
    }

    /// A client with an open book, and its connection.
    pub(crate) async fn book(&self) -> (boki_sdk::Book, Peer) {
        let (client, mut peer) = self.client().await;
        let (book, ()) = tokio::join!(client.book("orders"), peer.open_book());
        (book.unwrap(), peer)
    }
}

impl Peer {
    /// The next frame, whatever it is.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.frames.recv().await.expect("the client hung up")
    }

    /// The next frame, which must be such a message.
    pub(crate) async fn expect<M: Message>(&mut self) -> (u64, M) {
        let frame = self.frame().await;
        assert_eq!(frame.kind, M::KIND);
        (frame.corr, M::decode(&frame.body).unwrap())
    }

    pub(crate) async fn open_book(&mut self) {
        let (corr, open) = self.expect::<BookOpen>().await;
        self.answer(corr, &BookIs { id: BOOK, created_us: 1, name: open.name });
    }

    pub(crate) fn answer<M: Message>(&self, corr: u64, message: &M) {
        message.push(&self.outbox, corr);
        self.outbox.flush();
    }

    pub(crate) fn fail(&self, corr: u64, error: &boki_log::LogError) {
        self.answer(corr, &boki_wire::ErrorReply::from(error));
    }

    pub(crate) fn appended(&self, corr: u64, seq: u64) {
        let (seq, position) = (Seq(seq), Position(Seq(seq + 1)));
        self.answer(corr, &Appended { seq: Some(seq), count: 1, repeated: false, position });
    }

    pub(crate) async fn append(&mut self) -> (u64, Append) {
        self.expect::<Append>().await
    }

    pub(crate) fn hang_up(&self) {
        self.outbox.close(Close::Now);
    }

    /// The client has ended the connection, and sent nothing more.
    pub(crate) async fn is_hung_up(&mut self) -> bool {
        self.frames.recv().await.is_none()
    }

    pub(crate) fn is_quiet(&mut self) -> bool {
        self.frames.try_recv().is_err()
    }
}
