//! A worker that does everything wrong, frame by frame.

use boki_log::Position;
use boki_net::{Broken, Close, Config, Connection, Frame, Outbox};
use boki_wire::worker::*;
use boki_wire::{Hello, HelloOk, Message, Role};
use bytes::Bytes;
use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::good_worker::answer_to;

/// What it offers beside the good workers.
pub(crate) const BAD_FUNCTIONS: [&str; 3] = ["work", "effect", "nested"];

/// Registers, misbehaves until it is thrown out or hangs up, and comes again; for ever.
pub(crate) async fn run(address: String, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    loop {
        let stream = TcpStream::connect(&address).await.unwrap();
        if rng.u32(0..8) == 0 {
            half_a_frame(stream, &mut rng).await;
            continue;
        }
        let outbox = Outbox::new(64 << 20);
        let mut connection = Connection::opened(stream, outbox.clone(), Config::opening());
        Hello { version: 1, role: Role::Worker, name: "bad".into() }.push(&outbox, 0);
        register(&mut rng).push(&outbox, 1);
        let mut calls_left = rng.u32(1..60);
        while let Err(Broken::Refused(frame)) = connection.run(&mut Err::<(), Frame>).await {
            if frame.kind == HelloOk::KIND || frame.kind == REGISTERED {
                continue;
            }
            if frame.kind == INVOKE {
                calls_left = calls_left.saturating_sub(1);
                misbehave(&frame, &outbox, &mut rng);
            }
            if calls_left == 0 {
                outbox.close(if rng.bool() { Close::Now } else { Close::AfterWriting });
            }
        }
    }
}

fn register(rng: &mut Rng) -> Register {
    let function = |name: &str| FunctionSpec {
        name: name.into(),
        description: "does it wrong".into(),
        max_attempts: 3,
        timeout_ms: 2000,
        streams_input: false,
    };
    let mut functions: Vec<FunctionSpec> = BAD_FUNCTIONS.into_iter().map(function).collect();
    if rng.u32(0..10) == 0 {
        functions.extend((0..1000).map(|number| function(&format!("junk-{number}"))));
    }
    Register {
        worker: "bad".into(),
        process: String::new(),
        version: String::new(),
        concurrency: rng.u32(1..8),
        pid: 0,
        functions,
    }
}

/// The number in a call; that of a bad client need not have one.
fn number_of(frame: &Frame) -> u64 {
    let invoke = Invoke::decode(&frame.body).unwrap();
    std::str::from_utf8(&invoke.input).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn done(number: u64) -> InvokeDone {
    let output = Bytes::from(number.to_string());
    InvokeDone { position: Position::START, outcome: Outcome::Ok { content_type: "application/json".into(), output } }
}

fn misbehave(frame: &Frame, outbox: &Outbox, rng: &mut Rng) {
    let function = Invoke::decode(&frame.body).unwrap().function.to_owned();
    let answer = done(answer_to(number_of(frame)));
    match rng.u32(0..100) {
        // Its effect is not done: no answer is better than a wrong one.
        0..40 if function == "effect" => outbox.close(Close::Now),
        0..40 => answer.push(outbox, frame.corr),
        // The second answer, and one to a question that nobody asked, are wrong as well.
        40..55 if function != "effect" => {
            answer.push(outbox, frame.corr);
            done(1).push(outbox, frame.corr);
            done(2).push(outbox, rng.u64(..));
        }
        40..65 => done(3).push(outbox, frame.corr ^ (1 << rng.u32(32..63))),
        65..70 => outbox.push_frame(&Frame { kind: INVOKE_DONE, flags: 0, corr: frame.corr, body: garbage(rng) }),
        70..74 => outbox.push_frame(&Frame { kind: rng.u8(64..96), flags: 0, corr: frame.corr, body: garbage(rng) }),
        74..78 => OutputData { bytes: Bytes::from_static(b"no head") }.push(outbox, frame.corr),
        78..82 => {
            OutputHead::default().push(outbox, frame.corr);
            outbox.close(Close::AfterWriting);
        }
        82..86 => {
            for _ in 0..2000 {
                let line = "spam ".repeat(40);
                WorkerLog { call: None, level: Level::Error, line }.push(outbox, 0);
            }
            outbox.close(Close::AfterWriting);
        }
        86..90 => outbox.close(Close::Now),
        90..93 => Drain.push(outbox, 0),
        // Hangs.
        _ => {}
    }
    outbox.flush();
}

fn garbage(rng: &mut Rng) -> Bytes {
    let bytes: Vec<u8> = (0..rng.usize(0..80)).map(|_| rng.u8(..)).collect();
    bytes.into()
}

/// The beginning of a conversation, cut off at any byte.
async fn half_a_frame(mut stream: TcpStream, rng: &mut Rng) {
    let mut frames = boki_net::FrameBuf::new();
    let hello = Hello { version: 1, role: Role::Worker, name: "half".into() };
    frames.push(Hello::KIND, 0, 0, |body| hello.write(body));
    let register = register(rng);
    frames.push(REGISTER, 0, 1, |body| register.write(body));
    let mut bytes = boki_net::PREAMBLE.to_vec();
    bytes.extend_from_slice(&frames.into_bytes());
    bytes.truncate(rng.usize(0..bytes.len()));
    // The server may have hung up already.
    let _ = stream.write_all(&bytes).await;
}
