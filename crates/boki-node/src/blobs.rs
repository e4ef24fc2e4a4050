//! What is too large for a record and lies beside the log: written and read piece by piece, off the async threads.
//!
//! A blob is durable before its name can be written anywhere, and nothing here knows who refers to it: whoever names a blob in
//! a record removes it when that record goes, and after a start looks for those that no record names. The name holds in which
//! start it was given, so that such a search never meets a blob that is just being written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use boki_disk::vfs::{RealFile, RealVfs};
use boki_disk::{BlobError, BlobName, BlobReader, BlobStore, BlobWriter, PIECE_BYTES};
use boki_log::BookId;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// So many bytes are handed to the thread that writes, or fetched by the one that reads, at a time.
const BATCH_BYTES: usize = 4 * PIECE_BYTES;

/// The blobs of a node. Clones share them.
#[derive(Clone, Debug)]
pub struct Blobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: BlobStore<RealVfs>,
    term: u32,
    next: AtomicU32,
}

impl Blobs {
    pub(crate) fn new(store: BlobStore<RealVfs>, term: u32) -> Blobs {
        Blobs(Arc::new(Inner { store, term, next: AtomicU32::new(0) }))
    }

    /// A name that no blob has had: for a part of something in a book.
    #[must_use]
    pub fn name(&self, book: BookId, item: u128, part: u8) -> BlobName {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        BlobName { owner: book.0, item, part, version: u64::from(self.0.term) << 32 | u64::from(number) }
    }

    /// Whether the name was given since this start of the node.
    #[must_use]
    pub fn is_fresh(&self, name: BlobName) -> bool {
        name.version >> 32 == u64::from(self.0.term)
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`].
    pub async fn write(&self, name: BlobName) -> Result<BlobSink, BlobError> {
        let writer = self.run(move |store| store.write(name)).await?;
        Ok(BlobSink { writer: Some(writer), gathered: Vec::new(), gathered_bytes: 0 })
    }

    /// Opens a blob; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn read(&self, name: BlobName) -> Result<Option<BlobSource>, BlobError> {
        let reader = self.run(move |store| store.read(name)).await?;
        Ok(reader.map(|reader| BlobSource { len: reader.len(), reader: Some(reader), ready: VecDeque::new() }))
    }

    /// Removes blobs, those of them that there are.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn remove(&self, names: Vec<BlobName>) -> Result<(), BlobError> {
        if names.is_empty() {
            return Ok(());
        }
        self.run(move |store| names.into_iter().try_for_each(|name| store.remove(name))).await
    }

    /// Removes a blob without waiting for it.
    pub fn remove_later(&self, name: BlobName) {
        let inner = Arc::clone(&self.0);
        let remove = move || {
            if let Err(error) = inner.store.remove(name) {
                tracing::warn!(%error, "a blob that nobody needs could not be removed");
            }
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }

    /// The names of all blobs.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn names(&self) -> Result<Vec<BlobName>, BlobError> {
        self.run(BlobStore::names).await
    }

    /// Removes all blobs of a book that is gone.
    pub(crate) async fn remove_of(&self, book: BookId) -> Result<(), BlobError> {
        self.run(move |store| {
            let names = store.names()?;
            names.into_iter().filter(|name| name.owner == book.0).try_for_each(|name| store.remove(name))
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BlobStore<RealVfs>) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let inner = Arc::clone(&self.0);
        blocking(move || work(&inner.store)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is being torn down.
        Err(error) => Err(BlobError::Io { what: "use", name: "blob".to_owned(), source: std::io::Error::other(error) }),
    }
}

/// A blob that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct BlobSink {
    /// `None`: a write failed or was given up.
    writer: Option<BlobWriter<RealVfs>>,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
}

impl BlobSink {
    /// Adds bytes at the end.
    ///
    /// # Cancel-safety
    /// After the future was dropped the blob cannot be finished.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`]: the blob cannot be finished any more.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        // Many small pieces hold on to more than their bytes.
        if self.gathered_bytes < BATCH_BYTES && self.gathered.len() < 64 {
            return Ok(());
        }
        let writer = self.flush()?;
        self.writer = Some(blocking(writer).await?);
        Ok(())
    }

    /// Completes the blob: it is durable when this returns.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`]: there is no such blob.
    pub async fn finish(mut self) -> Result<(), BlobError> {
        let writer = self.flush()?;
        blocking(move || writer()?.finish()).await
    }

    /// What is to be done on another thread.
    fn flush(&mut self) -> Result<impl FnOnce() -> Result<BlobWriter<RealVfs>, BlobError> + Send + 'static, BlobError> {
        let mut writer = self.writer.take().ok_or_else(|| BlobError::Io {
            what: "write",
            name: "blob".to_owned(),
            source: std::io::Error::other("it failed before"),
        })?;
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        Ok(move || {
            gathered.iter().try_for_each(|bytes| writer.write(bytes))?;
            Ok(writer)
        })
    }
}

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobSource {
    len: u64,
    /// `None`: it has ended, or reading failed or was given up.
    reader: Option<BlobReader<RealFile>>,
    ready: VecDeque<Bytes>,
}

impl BlobSource {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Cancel-safety
    /// After the future was dropped nothing more can be read.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], [`BlobError::Io`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if let Some(piece) = self.ready.pop_front() {
            return Ok(Some(piece));
        }
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let (reader, pieces) = blocking(move || {
            let mut pieces = VecDeque::new();
            for _ in 0..BATCH_BYTES / PIECE_BYTES {
                match reader.next_piece()? {
                    Some(piece) => pieces.push_back(piece),
                    None => return Ok((None, pieces)),
                }
            }
            Ok((Some(reader), pieces))
        })
        .await?;
        self.reader = reader;
        self.ready = pieces;
        Ok(self.ready.pop_front())
    }
}
