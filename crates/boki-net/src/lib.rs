//! Length-prefixed frames over TCP and Unix sockets, batched both ways.
