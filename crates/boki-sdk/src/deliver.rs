//! Sending what a function returned: with the answer alone, or a head and pieces ahead of it.

use std::future::poll_fn;

use boki_net::Outbox;
use boki_wire::Message;
use boki_wire::worker::{OutputData, OutputHead};
use bytes::Bytes;

use crate::failure::Failure;
use crate::flow::OutputCredits;
use crate::function::{Output, OutputBody};
use crate::stream::Pieces;

/// What is longer goes in pieces, so that it is nowhere in memory twice.
const LAST_BYTES: usize = 64 << 10;

/// What an answer brings.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) content_type: String,
    pub(crate) output: Bytes,
}

/// Sends an output up to what goes with the answer, which is returned. `begins` is called when there is more than that.
///
/// # Cancel-safety
/// Dropping the future breaks the output off.
pub(crate) async fn deliver(
    output: Output,
    outbox: &Outbox,
    corr: u64,
    begins: impl FnOnce() -> OutputCredits,
) -> Result<Last, Failure> {
    let Output { body, content_type, head } = output;
    let (body, head) = match (body, head) {
        (OutputBody::Whole(output), None) => return Ok(Last { content_type, output }),
        (body, head) => (body, head),
    };
    let (status, headers) = head.map_or((0, Vec::new()), |head| (head.status, head.headers));
    // The server takes the link down over a status that there is not; this is one call's fault.
    if status != 0 && !(200..=999).contains(&status) {
        return Err(Failure::new(format_args!("{status} is not a status of a response")).code("bad_response"));
    }
    if let Some((name, _)) = headers.iter().find(|(name, _)| name.is_empty() || name.len() > 255) {
        return Err(Failure::new(format_args!("{name:?} is not the name of a header")).code("bad_response"));
    }
    let credits = begins();
    OutputHead { status, content_type, headers }.push(outbox, corr);
    match body {
        OutputBody::Whole(output) if output.len() <= LAST_BYTES => {
            return Ok(Last { content_type: String::new(), output });
        }
        OutputBody::Whole(output) => send(output, outbox, corr, &credits).await,
        OutputBody::Stream(pieces) => {
            outbox.flush();
            send_all(pieces, outbox, corr, &credits).await?;
        }
    }
    Ok(Last { content_type: String::new(), output: Bytes::new() })
}

async fn send_all(mut pieces: Pieces, outbox: &Outbox, corr: u64, credits: &OutputCredits) -> Result<(), Failure> {
    while let Some(piece) = poll_fn(|cx| pieces.as_mut().poll_next(cx)).await {
        send(piece?, outbox, corr, credits).await;
    }
    Ok(())
}

async fn send(mut bytes: Bytes, outbox: &Outbox, corr: u64, credits: &OutputCredits) {
    while !bytes.is_empty() {
        let len = credits.take(bytes.len()).await;
        OutputData { bytes: bytes.split_to(len) }.push(outbox, corr);
        outbox.flush();
    }
}
