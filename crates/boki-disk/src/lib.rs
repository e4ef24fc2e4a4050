//! Log files: preallocated segments, checksummed frames, group commit, recovery.
