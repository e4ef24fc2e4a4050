//! The kinds of frames. 64..=95 belong to the worker link: see [`crate::worker`].

/// [`Hello`](crate::Hello).
pub const HELLO: u8 = 1;
/// [`HelloOk`](crate::HelloOk).
pub const HELLO_OK: u8 = 2;
/// [`Ping`](crate::Ping).
pub const PING: u8 = 3;
/// [`Pong`](crate::Pong).
pub const PONG: u8 = 4;
/// [`ErrorReply`](crate::ErrorReply).
pub const ERROR: u8 = 5;
/// [`Cancel`](crate::Cancel).
pub const CANCEL: u8 = 6;

/// [`op::Append`](boki_log::op::Append).
pub const APPEND: u8 = 8;
/// [`op::Appended`](boki_log::op::Appended).
pub const APPENDED: u8 = 9;
/// [`op::Read`](boki_log::op::Read).
pub const READ: u8 = 10;
/// [`op::Records`](boki_log::op::Records).
pub const RECORDS: u8 = 11;
/// [`op::Tail`](boki_log::op::Tail).
pub const TAIL: u8 = 12;
/// [`op::TailReply`](boki_log::op::TailReply).
pub const TAIL_IS: u8 = 13;
/// [`op::Tags`](boki_log::op::Tags).
pub const TAGS: u8 = 14;
/// [`op::TagsReply`](boki_log::op::TagsReply).
pub const TAGS_ARE: u8 = 15;
/// [`op::SetAux`](boki_log::op::SetAux).
pub const SET_AUX: u8 = 16;
/// [`AuxSet`](crate::log::AuxSet).
pub const AUX_SET: u8 = 17;

/// [`BookOpen`](crate::BookOpen).
pub const BOOK_OPEN: u8 = 24;
/// [`BookIs`](crate::BookIs).
pub const BOOK_IS: u8 = 25;
/// [`BookCreate`](crate::BookCreate).
pub const BOOK_CREATE: u8 = 26;
/// [`BookList`](crate::BookList).
pub const BOOK_LIST: u8 = 27;
/// [`BooksAre`](crate::BooksAre).
pub const BOOKS_ARE: u8 = 28;
/// [`BookRemove`](crate::BookRemove).
pub const BOOK_REMOVE: u8 = 29;
/// [`BookRemoved`](crate::BookRemoved).
pub const BOOK_REMOVED: u8 = 30;

/// [`Call`](crate::Call).
pub const CALL: u8 = 32;
/// [`CallResult`](crate::CallResult).
pub const CALL_RESULT: u8 = 33;
/// [`CallAccepted`](crate::CallAccepted).
pub const CALL_ACCEPTED: u8 = 34;
/// [`CallWait`](crate::CallWait).
pub const CALL_WAIT: u8 = 35;
/// [`CallPending`](crate::CallPending).
pub const CALL_PENDING: u8 = 36;
/// [`FunctionList`](crate::FunctionList).
pub const FUNCTION_LIST: u8 = 37;
/// [`FunctionsAre`](crate::FunctionsAre).
pub const FUNCTIONS_ARE: u8 = 38;
