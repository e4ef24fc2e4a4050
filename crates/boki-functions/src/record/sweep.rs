//! Removing blobs that no record names: after a crash between a blob and its record, or between a record's end and its blob's.

use std::sync::Arc;

use boki_log::LogError;
use boki_node::BlobName;

use super::payload::{Part, blob_name, call_of_blob};
use super::store::CallRecord;
use crate::functions::Shared;

impl Shared {
    /// Removes what earlier starts have left, as a task of its own. Blobs of this start are not looked at: they may be named
    /// any moment.
    pub(super) fn sweep_blobs_later(shared: &Arc<Shared>) {
        let owned = Arc::clone(shared);
        let sweep = async move {
            match owned.sweep_blobs().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "blobs that no call names were removed"),
                Err(reason) => tracing::warn!(%reason, "blobs that no call names could not be removed now"),
            }
        };
        shared.tasks.spawn_on(sweep, &shared.runtime);
    }

    async fn sweep_blobs(&self) -> Result<usize, String> {
        let blobs = self.node.blobs();
        let names = blobs.names().await.map_err(|error| error.to_string())?;
        let mut removed = 0;
        // In order, so those of one call come together.
        for of_call in names.chunk_by(|one, other| (one.owner, one.item) == (other.owner, other.item)) {
            if self.closing.is_cancelled() {
                break;
            }
            let of_before = of_call.iter().copied().filter(|name| !blobs.is_fresh(*name));
            let of_before: Vec<BlobName> = of_before.collect();
            let Some(first) = of_before.first() else { continue };
            let (book, id) = call_of_blob(*first);
            let record = match self.find(book, id).await {
                Ok(record) => record,
                Err(LogError::BookNotFound { .. }) => None,
                Err(error) => return Err(error.to_string()),
            };
            let named = record.as_ref().map_or([None, None], |record| named_by(*first, record));
            let unnamed: Vec<BlobName> = of_before.into_iter().filter(|name| !named.contains(&Some(*name))).collect();
            removed += unnamed.len();
            blobs.remove(unnamed).await.map_err(|error| error.to_string())?;
        }
        Ok(removed)
    }
}

/// The blobs that the record of a call names, `of` being any of that call's.
fn named_by(of: BlobName, record: &CallRecord) -> [Option<BlobName>; 2] {
    let (book, id) = call_of_blob(of);
    let input = record.accepted.as_ref().and_then(|on_record| on_record.accepted.input.blob());
    let output = match &record.ended {
        Some(Ok(reply)) => reply.output.blob(),
        _ => None,
    };
    [(Part::Input, input), (Part::Output, output)]
        .map(|(part, blob)| blob.map(|blob| blob_name(book, id, part, blob.version)))
}
