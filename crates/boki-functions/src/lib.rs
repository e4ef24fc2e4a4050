//! Worker processes, calls, and the durable record of calls.
