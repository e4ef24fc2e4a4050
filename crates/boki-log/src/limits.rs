//! What the log refuses at the door.

/// Bounds on what a caller may ask. All are settings (`[limits]` in `boki.toml`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one record, in bytes.
    pub record_bytes: usize,
    /// Largest batch, all records, tags and conditions together, in bytes.
    pub batch_bytes: usize,
    /// Most records in one batch.
    pub batch_records: usize,
    /// Most tags on one record.
    pub record_tags: usize,
    /// Most conditions on one batch.
    pub batch_conditions: usize,
    /// Most blocking reads and subscriptions that wait at one node.
    pub waiting_reads: usize,
    /// Most bytes of appends that may wait for the disk before further ones are refused.
    pub pending_bytes: usize,
    /// Most records one read returns.
    pub read_records: usize,
    /// Most payload bytes one read returns (at least one record is returned whatever its size).
    pub read_bytes: usize,
    /// Largest aux data of one record, in bytes.
    pub aux_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            record_bytes: 8 << 20,
            batch_bytes: 16 << 20,
            batch_records: 4096,
            record_tags: 64,
            batch_conditions: 64,
            waiting_reads: 100_000,
            pending_bytes: 256 << 20,
            read_records: 4096,
            read_bytes: 16 << 20,
            aux_bytes: 1 << 20,
        }
    }
}
