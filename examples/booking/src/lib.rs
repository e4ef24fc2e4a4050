//! Hotel and flight booking on Boki.
