//! What a server answers.

use boki_log::{Position, op};
use boki_net::Frame;
use boki_wire::{
    BookIs, BookRemoved, BooksAre, CallAccepted, CallPending, CallResult, ErrorReply, FunctionsAre, Message, Pong,
    kinds,
};

use crate::error::{Error, Result, position_of};

/// Anything that a server answers, errors apart.
#[derive(Debug)]
pub(crate) enum Answer {
    Appended(op::Appended),
    Records(op::Records),
    Tail(op::TailReply),
    Tags(op::TagsReply),
    AuxSet,
    Book(BookIs),
    Books(BooksAre),
    BookRemoved,
    CallResult(CallResult),
    CallAccepted(CallAccepted),
    CallPending,
    Functions(FunctionsAre),
    Pong,
}

/// An answer, or why there is none, and what the asker has seen with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) result: Result<Answer>,
    pub(crate) position: Option<Position>,
}

impl Received {
    pub(crate) fn decode(frame: &Frame) -> Received {
        match decode(frame) {
            Ok(Ok(answer)) => Received { position: answer.position(), result: Ok(answer) },
            Ok(Err(reply)) => Received { position: position_of(&reply), result: Err((&reply).into()) },
            Err(reason) => Received { position: None, result: Err(Error::unexpected(reason)) },
        }
    }
}

fn decode(frame: &Frame) -> Result<Result<Answer, ErrorReply>, String> {
    if frame.flags != 0 {
        return Err(format!("unknown flags {:#x}", frame.flags));
    }
    let body = &frame.body;
    let answer = match frame.kind {
        kinds::ERROR => return ErrorReply::decode(body).map(Err).map_err(|error| error.to_string()),
        kinds::APPENDED => Message::decode(body).map(Answer::Appended),
        kinds::RECORDS => Message::decode(body).map(Answer::Records),
        kinds::TAIL_IS => Message::decode(body).map(Answer::Tail),
        kinds::TAGS_ARE => Message::decode(body).map(Answer::Tags),
        kinds::AUX_SET => Ok(Answer::AuxSet),
        kinds::BOOK_IS => Message::decode(body).map(Answer::Book),
        kinds::BOOKS_ARE => Message::decode(body).map(Answer::Books),
        kinds::BOOK_REMOVED => BookRemoved::decode(body).map(|_| Answer::BookRemoved),
        kinds::CALL_RESULT => Message::decode(body).map(Answer::CallResult),
        kinds::CALL_ACCEPTED => Message::decode(body).map(Answer::CallAccepted),
        kinds::CALL_PENDING => CallPending::decode(body).map(|_| Answer::CallPending),
        kinds::PONG => Pong::decode(body).map(|_| Answer::Pong),
        kinds::FUNCTIONS_ARE => Message::decode(body).map(Answer::Functions),
        kind => return Err(format!("a message of kind {kind}")),
    };
    answer.map(Ok).map_err(|error| error.to_string())
}

impl Answer {
    fn position(&self) -> Option<Position> {
        match self {
            Answer::Appended(appended) => Some(appended.position),
            Answer::Records(records) => Some(records.position),
            Answer::Tail(tail) => Some(tail.position),
            Answer::Tags(tags) => Some(tags.position),
            Answer::CallResult(result) => Some(result.position),
            Answer::CallAccepted(accepted) => Some(accepted.position),
            _ => None,
        }
    }
}
