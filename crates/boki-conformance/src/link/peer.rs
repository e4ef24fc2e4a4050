//! The server's end of a worker's connection, as the suite plays it.
//!
//! Whatever a case is about, each frame that the worker sends is held against the rules that always hold: it is well
//! formed, an attempt is answered once and not after its connection is gone, a stream keeps to its head, its credit and
//! its pieces, and credit is given only for what was sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use boki_net::{Decoder, Frame, FrameBuf};
use boki_wire::worker::{
    self, Drain, InputCredit, InvokeDone, MAX_PIECE_BYTES, OutputData, OutputHead, Register, STREAM_WINDOW, WorkerLog,
};
use boki_wire::{Hello, Message, Ping, Pong, Role, VERSION, kinds};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::describe::asked;

/// How long anything that is expected may take. Nothing that passes waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Frames that a worker may be ahead of the case.
const INBOX_FRAMES: usize = 4096;
/// Largest frame that is taken from a worker.
const MAX_BODY: usize = 32 << 20;
/// Of the suite's own pings, by which it knows that the worker has seen everything before.
const BARRIER: u64 = 0x00ba_0000_0000_0001;

/// An attempt, as far as its frames say.
#[derive(Debug)]
struct Attempt {
    label: String,
    answered: bool,
    has_head: bool,
    /// How much output it may still send.
    output_credit: u64,
    /// How much input was sent to it beyond its Invoke, and how much credit it gave.
    input_sent: u64,
    input_credited: u64,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    writer: OwnedWriteHalf,
    frames: mpsc::Receiver<Result<Frame, String>>,
    /// What has come and was not expected yet.
    inbox: VecDeque<Frame>,
    attempts: BTreeMap<u64, Attempt>,
    barriers: u64,
    writing: Writing,
}

/// How what is sent gets onto the wire.
#[derive(Debug)]
enum Writing {
    Apart,
    /// In one write, once that is over.
    Together(Vec<u8>),
    ByteByByte,
}

impl Peer {
    /// Takes a connection: reads from it in the background.
    pub(super) fn new(stream: TcpStream) -> Peer {
        let (mut reader, writer) = stream.into_split();
        let (sender, frames) = mpsc::channel(INBOX_FRAMES);
        tokio::spawn(async move {
            let mut decoder = Decoder::after_preamble(MAX_BODY);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => {
                        if sender.send(Ok(frame)).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => match reader.read_buf(decoder.room()).await {
                        // The receiver sees the end of the channel.
                        Ok(0) | Err(_) => return,
                        Ok(bytes) => decoder.was_read(bytes),
                    },
                    Err(error) => {
                        // Nobody listens any more: then it does not matter.
                        let _ = sender.send(Err(format!("what the worker sends is not frames: {error}"))).await;
                        return;
                    }
                }
            }
        });
        Peer { writer, frames, inbox: VecDeque::new(), attempts: BTreeMap::new(), barriers: 0, writing: Writing::Apart }
    }

    /// The worker's greeting.
    pub(super) async fn hello(&mut self) -> Result<(), String> {
        let frame = self.next(|frame| frame.kind == kinds::HELLO, "its Hello (kind 1)").await?;
        let hello = decode::<Hello>(&frame)?;
        if frame.corr != 0 || hello.version != VERSION || hello.role != Role::Worker {
            return Err(format!("the Hello is of version {}, {:?}, corr {}", hello.version, hello.role, frame.corr));
        }
        Ok(())
    }

    /// The worker's registration, and its corr.
    pub(super) async fn register(&mut self) -> Result<(u64, Register), String> {
        let frame = self.next(|frame| frame.kind == worker::REGISTER, "its Register (kind 64)").await?;
        Ok((frame.corr, decode(&frame)?))
    }

    /// An Invoke goes out with this corr.
    pub(super) fn begin(&mut self, corr: u64, label: &str) {
        let attempt = Attempt {
            label: label.to_owned(),
            answered: false,
            has_head: false,
            output_credit: u64::from(STREAM_WINDOW),
            input_sent: 0,
            input_credited: 0,
        };
        self.attempts.insert(corr, attempt);
    }

    pub(super) fn label(&self, corr: u64) -> Option<String> {
        self.attempts.get(&corr).map(|attempt| attempt.label.clone())
    }

    /// How many bytes of input the worker takes now.
    pub(super) fn input_room(&self, corr: u64) -> u64 {
        self.attempts
            .get(&corr)
            .map_or(0, |attempt| (u64::from(STREAM_WINDOW) + attempt.input_credited).saturating_sub(attempt.input_sent))
    }

    pub(super) fn sent_input(&mut self, corr: u64, bytes: u64) {
        if let Some(attempt) = self.attempts.get_mut(&corr) {
            attempt.input_sent += bytes;
        }
    }

    pub(super) fn gave_credit(&mut self, corr: u64, bytes: u32) {
        if let Some(attempt) = self.attempts.get_mut(&corr) {
            attempt.output_credit += u64::from(bytes);
        }
    }

    /// Sends a message.
    pub(super) async fn send<M: Message>(&mut self, corr: u64, message: &M) -> Result<(), String> {
        let mut buf = FrameBuf::new();
        buf.push(M::KIND, 0, corr, |body| message.write(body));
        self.write(&buf.into_bytes()).await
    }

    /// Sends bytes as they are.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.writing {
            Writing::Apart => self.put(bytes).await,
            Writing::Together(all) => {
                all.extend_from_slice(bytes);
                Ok(())
            }
            Writing::ByteByByte => {
                for byte in bytes {
                    self.put(std::slice::from_ref(byte)).await?;
                }
                Ok(())
            }
        }
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        match timeout(PATIENCE, self.writer.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the worker has closed the connection: {error}")),
            Err(_) => Err("the worker does not read".to_owned()),
        }
    }

    pub(super) fn byte_by_byte(&mut self) {
        self.writing = Writing::ByteByByte;
    }

    pub(super) fn together(&mut self) {
        self.writing = Writing::Together(Vec::new());
    }

    pub(super) async fn apart(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.writing, Writing::Apart) {
            Writing::Together(all) => self.put(&all).await,
            Writing::Apart | Writing::ByteByByte => Ok(()),
        }
    }

    /// The first frame that is wanted, among those that came already or come now.
    pub(super) async fn next(&mut self, wanted: impl Fn(&Frame) -> bool, what: &str) -> Result<Frame, String> {
        if let Some(at) = self.inbox.iter().position(&wanted)
            && let Some(frame) = self.inbox.remove(at)
        {
            return Ok(frame);
        }
        loop {
            let frame = match timeout(PATIENCE, self.frames.recv()).await {
                Ok(Some(frame)) => frame?,
                Ok(None) => return Err(format!("the worker closed the connection; expected {what}")),
                Err(_) => return Err(format!("nothing for {PATIENCE:?}; expected {what}{}", self.rest())),
            };
            self.check(&frame)?;
            if wanted(&frame) {
                return Ok(frame);
            }
            self.inbox.push_back(frame);
        }
    }

    /// The worker has taken everything that was sent so far, and sent all that follows at once.
    pub(super) async fn barrier(&mut self) -> Result<(), String> {
        self.barriers += 1;
        let corr = BARRIER + self.barriers;
        self.send(corr, &Ping).await?;
        let pong = self.next(|frame| frame.kind == kinds::PONG && frame.corr == corr, "a Pong (kind 4)").await?;
        decode::<Pong>(&pong).map(|_| ())
    }

    /// That nothing has come which was not expected.
    pub(super) async fn quiet(&mut self) -> Result<(), String> {
        self.barrier().await?;
        if self.inbox.is_empty() { Ok(()) } else { Err(format!("expected nothing{}", self.rest())) }
    }

    /// Until the worker ends the connection. Frames before that are as good as any.
    pub(super) async fn closed(&mut self) -> Result<(), String> {
        loop {
            match timeout(PATIENCE, self.frames.recv()).await {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => {
                    let frame = frame?;
                    self.check(&frame)?;
                    self.inbox.push_back(frame);
                }
                Err(_) => return Err(format!("the connection is still open after {PATIENCE:?}{}", self.rest())),
            }
        }
    }

    /// What came and was not expected, for a failure's text.
    fn rest(&self) -> String {
        let kinds: Vec<String> = self.inbox.iter().take(8).map(|frame| frame.kind.to_string()).collect();
        if kinds.is_empty() { String::new() } else { format!(" (what came: frames of kind {})", kinds.join(", ")) }
    }

    /// The rules that always hold.
    fn check(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.flags != 0 {
            return Err(format!("a frame of kind {} has flags: {}", frame.kind, frame.flags));
        }
        match frame.kind {
            worker::INVOKE_DONE => {
                decode::<InvokeDone>(frame)?;
                let attempt = self.attempt(frame)?;
                if std::mem::replace(&mut attempt.answered, true) {
                    return Err(format!("the call {:?} was answered twice", attempt.label));
                }
            }
            worker::OUTPUT_HEAD => {
                decode::<OutputHead>(frame)?;
                let attempt = self.attempt(frame)?;
                if attempt.answered || std::mem::replace(&mut attempt.has_head, true) {
                    return Err(format!("an OutputHead too many for the call {:?}", attempt.label));
                }
            }
            worker::OUTPUT_DATA => {
                let bytes = decode::<OutputData>(frame)?.bytes.len();
                let attempt = self.attempt(frame)?;
                if attempt.answered || !attempt.has_head {
                    return Err(format!("OutputData without a head, or after the end, for {:?}", attempt.label));
                }
                if bytes > MAX_PIECE_BYTES {
                    return Err(format!("a piece of {bytes} bytes; at most {MAX_PIECE_BYTES} are allowed"));
                }
                let Some(left) = attempt.output_credit.checked_sub(bytes as u64) else {
                    return Err(format!("{:?} sent more output than it had credit for", attempt.label));
                };
                attempt.output_credit = left;
            }
            worker::INPUT_CREDIT => {
                let credit = u64::from(decode::<InputCredit>(frame)?.bytes);
                let attempt = self.attempt(frame)?;
                attempt.input_credited += credit;
                if attempt.input_credited > attempt.input_sent {
                    return Err(format!("{:?} gave credit for more than it was sent", attempt.label));
                }
                if credit < MAX_PIECE_BYTES as u64 {
                    return Err(format!(
                        "credit for {credit} bytes; it is given in pieces of {MAX_PIECE_BYTES} or more"
                    ));
                }
            }
            worker::WORKER_LOG => drop(decode::<WorkerLog>(frame)?),
            worker::DRAIN => drop(decode::<Drain>(frame)?),
            worker::REGISTERED
            | worker::INVOKE
            | worker::INVOKE_CANCEL
            | worker::INVOKE_INPUT
            | worker::OUTPUT_CREDIT => {
                return Err(format!("a worker never sends a frame of kind {}", frame.kind));
            }
            _ => drop(asked(frame, |_| None)?),
        }
        Ok(())
    }

    fn attempt(&mut self, frame: &Frame) -> Result<&mut Attempt, String> {
        let (kind, corr) = (frame.kind, frame.corr);
        let attempt = self.attempts.get_mut(&corr);
        attempt.ok_or_else(|| format!("a frame of kind {kind} for corr {corr}, which no Invoke of this connection had"))
    }
}

/// Takes a frame's body apart.
pub(super) fn decode<M: Message>(frame: &Frame) -> Result<M, String> {
    M::decode(&frame.body).map_err(|error| format!("a frame of kind {} that does not read: {error}", frame.kind))
}
