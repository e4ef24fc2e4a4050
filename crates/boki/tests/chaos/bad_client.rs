//! Clients that open connections and say nothing sensible, and clients that do not read.

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Opens connections, a storm of them at a time, and drops them; for ever.
pub(crate) async fn run(address: String, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    loop {
        let mut storm = Vec::new();
        for _ in 0..rng.usize(1..80) {
            // A server that is full may refuse.
            let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
            let _ = stream.write_all(&nonsense(&mut rng)).await;
            storm.push(stream);
        }
        // One answer is waited for, so that the storm goes no faster than the server.
        if let Ok(mut last) = TcpStream::connect(&address).await {
            let _ = last.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            let _ = last.read_to_end(&mut Vec::new()).await;
        }
    }
}

fn nonsense(rng: &mut Rng) -> Vec<u8> {
    match rng.u32(0..6) {
        0 => Vec::new(),
        1 => (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect(),
        2 => b"POST /call/work HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nhalf".to_vec(),
        3 => b"GET / HTTP/1.1\r\nhost".to_vec(),
        4 => b"BOKI\x01\0\0\0".to_vec(),
        _ => b"POST /call/work HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n\"x\"POST /call/".to_vec(),
    }
}

/// Asks for a large answer, reads a little of it, and goes away; for ever.
pub(crate) async fn read_slowly(address: String) {
    loop {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = b"POST /call/big HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\n4000000";
        stream.write_all(request).await.unwrap();
        let mut some = [0; 1000];
        let _ = stream.read_exact(&mut some).await;
    }
}
