//! What a client asks a server, kept until it is answered so that it can be asked again.

use boki_log::op;
use boki_net::Outbox;
use boki_wire::{BookCreate, BookList, BookOpen, BookRemove, Call, CallWait, FunctionList, Message, Ping};

/// Anything that a client asks.
#[derive(Debug)]
pub(crate) enum Question {
    Append(op::Append),
    Read(op::Read),
    Tail(op::Tail),
    Tags(op::Tags),
    SetAux(op::SetAux),
    BookOpen(BookOpen),
    BookCreate(BookCreate),
    BookList,
    BookRemove(BookRemove),
    Call(Call),
    CallWait(CallWait),
    FunctionList,
    Ping,
}

/// What a question shares its bound with: one kind of question never waits for the answers of another, so those
/// that wait for something to happen never keep out those that make it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Answered as soon as the server has done it.
    Quick,
    /// Reads that wait for a record, and for results.
    Waiting,
    /// Calls.
    Calls,
}

impl Question {
    pub(crate) fn push(&self, outbox: &Outbox, corr: u64) {
        match self {
            Question::Append(append) => append.push(outbox, corr),
            Question::Read(read) => read.push(outbox, corr),
            Question::Tail(tail) => tail.push(outbox, corr),
            Question::Tags(tags) => tags.push(outbox, corr),
            Question::SetAux(set_aux) => set_aux.push(outbox, corr),
            Question::BookOpen(open) => open.push(outbox, corr),
            Question::BookCreate(create) => create.push(outbox, corr),
            Question::BookList => BookList.push(outbox, corr),
            Question::BookRemove(remove) => remove.push(outbox, corr),
            Question::Call(call) => call.push(outbox, corr),
            Question::CallWait(wait) => wait.push(outbox, corr),
            Question::FunctionList => FunctionList.push(outbox, corr),
            Question::Ping => Ping.push(outbox, corr),
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        match self {
            Question::Read(read) if read.wait.is_some() => Lane::Waiting,
            Question::CallWait(wait) if wait.wait.is_some() => Lane::Waiting,
            Question::Call(_) => Lane::Calls,
            _ => Lane::Quick,
        }
    }

    /// Whether asking twice does no more than asking once.
    pub(crate) fn is_repeatable(&self) -> bool {
        match self {
            Question::Append(append) => {
                append.batch.id().is_some() || matches!(append.batch.kind(), boki_log::batch::Kind::Trim { .. })
            }
            Question::Call(call) => call.idempotency_key.is_some(),
            Question::BookCreate(_) | Question::BookRemove(_) => false,
            _ => true,
        }
    }

    /// Whether the server goes on with it although nobody wants the answer.
    pub(crate) fn is_worth_cancelling(&self) -> bool {
        matches!(self.lane(), Lane::Waiting | Lane::Calls)
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Question::Append(append) => append.batch.bytes().len(),
            Question::SetAux(set_aux) => set_aux.aux.len(),
            Question::Call(call) => call.input.len(),
            _ => 0,
        }
    }

    pub(crate) fn what(&self) -> &'static str {
        match self {
            Question::Append(_) => "an append",
            Question::Read(_) => "a read",
            Question::Tail(_) => "asking for a tail",
            Question::Tags(_) => "listing tags",
            Question::SetAux(_) => "setting aux data",
            Question::BookOpen(_) => "opening a book",
            Question::BookCreate(_) => "creating a book",
            Question::BookList => "listing books",
            Question::BookRemove(_) => "removing a book",
            Question::Call(_) => "a call",
            Question::CallWait(_) => "waiting for a call's result",
            Question::FunctionList => "listing functions",
            Question::Ping => "asking whether the server is there",
        }
    }
}
