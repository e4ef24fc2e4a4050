//! The simulator: one seed, one thread, the production state machines, faults and checkers.
