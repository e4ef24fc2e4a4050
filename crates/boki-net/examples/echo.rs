//! How many small frames per second two processes exchange: `cargo run --release -p boki-net --example echo`.
//!
//! The parent echoes; the child keeps a number of frames in flight and prints what came back per second.

use std::convert::Infallible;
use std::error::Error;
use std::time::{Duration, Instant};

use boki_net::{Close, Config, Connection, Frame, Outbox, tune_tcp};
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

const SECONDS: u64 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(address) => ask(&address).await,
        None => echo().await,
    }
}

async fn echo() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let mut child = std::process::Command::new(std::env::current_exe()?).arg(address).spawn()?;
    for _ in LOADS {
        let (stream, _) = listener.accept().await?;
        tune_tcp(&stream)?;
        let outbox = Outbox::new(64 << 20);
        let mut connection = Connection::accepted(stream, outbox.clone(), Config::accepting());
        let mut sink = |frame: Frame| {
            outbox.push_frame(&frame);
            Ok::<(), Infallible>(())
        };
        // The child hangs up with echoes unread, which may show as a reset.
        let _ = connection.run(&mut sink).await;
    }
    child.wait()?;
    Ok(())
}

/// Frames in flight and bytes in each.
const LOADS: [(u64, usize); 5] = [(1, 64), (64, 64), (1024, 64), (64, 1024), (1024, 1024)];

async fn ask(address: &str) -> Result<(), Box<dyn Error>> {
    for (in_flight, bytes) in LOADS {
        let stream = TcpStream::connect(address).await?;
        tune_tcp(&stream)?;
        let outbox = Outbox::new(64 << 20);
        let mut connection = Connection::opened(stream, outbox.clone(), Config::opening());
        let frame = Frame { kind: 1, flags: 0, corr: 1, body: Bytes::from(vec![7; bytes]) };
        for _ in 0..in_flight {
            outbox.push_frame(&frame);
        }
        let start = Instant::now();
        let mut echoed = 0_u64;
        let mut sink = |frame: Frame| {
            echoed += 1;
            if echoed.is_multiple_of(256) && start.elapsed() > Duration::from_secs(SECONDS) {
                outbox.close(Close::AfterWriting);
            } else {
                outbox.push_frame(&frame);
            }
            Ok::<(), Infallible>(())
        };
        connection.run(&mut sink).await?;
        let rate = echoed as f64 / start.elapsed().as_secs_f64();
        println!("{in_flight:>5} in flight of {bytes:>5} bytes: {rate:>9.0} round trips/s");
    }
    Ok(())
}
