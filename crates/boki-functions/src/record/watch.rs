//! Who wants to know how a call on record goes, and which calls are worked on.
//!
//! A call that only waits for its turn has no entry here, unless somebody waits for its result. Whoever does takes a
//! [`Watch`] first and looks at the record then: an end that is recorded later is told to the watch.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use boki_log::BookId;
use boki_wire::worker::CallId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::entry::CallEnd;
use crate::error::CallError;

/// What is known of a call.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing, or that it is on record.
    Open,
    /// It is being put on record.
    Accepting,
    /// It is not on record.
    Refused(CallError),
    /// It has a result, which cannot be put on record for now, for this reason.
    Held(CallError),
    /// It has ended. Is that no result (the engine stops, the log fails), it runs again after the next start.
    Ended(CallEnd),
}

/// What this engine does about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    None,
    Accepting,
    Running,
}

#[derive(Debug)]
struct Entry {
    state: watch::Sender<State>,
    watches: usize,
    work: Work,
    cancelled: CancellationToken,
}

/// The calls of which something is to be told.
#[derive(Debug, Default)]
pub(super) struct Watched {
    entries: Mutex<HashMap<(BookId, CallId), Entry>>,
}

/// Follows a call. As long as there is one, what becomes of the call is told.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    watched: &'a Watched,
    call: (BookId, CallId),
    states: watch::Receiver<State>,
}

impl Watched {
    /// Follows a call from now on.
    pub(super) fn watch(&self, book: BookId, id: CallId) -> Watch<'_> {
        let mut entries = self.entries.lock();
        let entry = entries.entry((book, id)).or_insert_with(Entry::new);
        entry.watches += 1;
        Watch { watched: self, call: (book, id), states: entry.state.subscribe() }
    }

    /// Whether this engine works on a call.
    pub(super) fn is_running(&self, book: BookId, id: CallId) -> bool {
        self.entries.lock().get(&(book, id)).is_some_and(|entry| entry.work == Work::Running)
    }

    /// The call is on record, now or since before.
    pub(super) fn accepted(&self, book: BookId, id: CallId) {
        self.end_accepting(book, id, State::Open);
    }

    /// The call is not on record.
    pub(super) fn refused(&self, book: BookId, id: CallId, error: CallError) {
        self.end_accepting(book, id, State::Refused(error));
    }

    fn end_accepting(&self, book: BookId, id: CallId, state: State) {
        let mut entries = self.entries.lock();
        let Slot::Occupied(mut slot) = entries.entry((book, id)) else { return };
        let entry = slot.get_mut();
        if entry.work == Work::Accepting {
            entry.work = Work::None;
            entry.state.send_replace(state);
            if entry.watches == 0 {
                slot.remove();
            }
        }
    }

    /// The call is worked on from now on. `None`: it is already.
    pub(super) fn begin(&self, book: BookId, id: CallId) -> Option<CancellationToken> {
        let mut entries = self.entries.lock();
        let entry = entries.entry((book, id)).or_insert_with(Entry::new);
        if entry.work == Work::Running {
            return None;
        }
        if entry.work == Work::Accepting {
            // Somebody with the same key only looks whether it is on record.
            entry.state.send_replace(State::Open);
        }
        entry.work = Work::Running;
        Some(entry.cancelled.clone())
    }

    /// The result of a call that is worked on is there and cannot be put on record for now.
    pub(super) fn held(&self, book: BookId, id: CallId, error: CallError) {
        if let Some(entry) = self.entries.lock().get(&(book, id)) {
            entry.state.send_replace(State::Held(error));
        }
    }

    /// The call is over for this engine.
    pub(super) fn ended(&self, book: BookId, id: CallId, result: CallEnd) {
        let entry = self.entries.lock().remove(&(book, id));
        if let Some(entry) = entry {
            entry.state.send_replace(State::Ended(result));
        }
    }

    /// The call has ended on record, without this engine's doing or before its turn. If it is worked on, that stops, and its
    /// end is told then.
    pub(super) fn stop(&self, book: BookId, id: CallId, ended: CallEnd) {
        let mut entries = self.entries.lock();
        let Slot::Occupied(slot) = entries.entry((book, id)) else { return };
        if slot.get().work == Work::Running {
            slot.get().cancelled.cancel();
        } else {
            slot.remove().state.send_replace(State::Ended(ended));
        }
    }

    /// The engine stops: what only waits for its turn will not have it.
    pub(super) fn close(&self) {
        self.entries.lock().retain(|_, entry| {
            let stays = entry.work != Work::None;
            if !stays {
                entry.state.send_replace(State::Ended(Err(CallError::ShuttingDown)));
            }
            stays
        });
    }
}

impl Entry {
    fn new() -> Entry {
        let (state, _) = watch::channel(State::Open);
        Entry { state, watches: 0, work: Work::None, cancelled: CancellationToken::new() }
    }
}

impl<'a> Watch<'a> {
    /// Begins to put the call on record. `None`: somebody else does.
    pub(super) fn begin_accepting(&self) -> Option<Accepting<'a>> {
        let mut entries = self.watched.entries.lock();
        let entry = entries.entry(self.call).or_insert_with(Entry::new);
        if entry.work == Work::Accepting {
            return None;
        }
        if entry.work == Work::None {
            entry.work = Work::Accepting;
            entry.state.send_replace(State::Accepting);
        }
        Some(Accepting { watched: self.watched, call: Some(self.call) })
    }

    /// Waits until nobody puts the call on record. The reason, if it was refused.
    pub(super) async fn until_accepted(&mut self) -> Result<(), CallError> {
        match self.until(|state| !matches!(state, State::Accepting)).await {
            State::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The call's result, once it has one.
    pub(super) async fn result(mut self) -> CallEnd {
        match self.until(|state| matches!(state, State::Refused(_) | State::Held(_) | State::Ended(_))).await {
            State::Ended(result) => result,
            State::Refused(error) | State::Held(error) => Err(error),
            State::Open | State::Accepting => Err(CallError::ShuttingDown),
        }
    }

    async fn until(&mut self, wanted: impl FnMut(&State) -> bool) -> State {
        match self.states.wait_for(wanted).await {
            Ok(state) => state.clone(),
            // The task is gone without a word: the runtime is being torn down.
            Err(_) => State::Ended(Err(CallError::ShuttingDown)),
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut entries = self.watched.entries.lock();
        let Slot::Occupied(mut slot) = entries.entry(self.call) else { return };
        let entry = slot.get_mut();
        // Is it another entry, of the same call, then ours is gone.
        if self.states.same_channel(&entry.state.subscribe()) {
            entry.watches -= 1;
            if entry.watches == 0 && entry.work == Work::None {
                slot.remove();
            }
        }
    }
}

/// One puts a call on record. Dropped before that is [handed on](Accepting::hand_on), it is as if nobody had begun.
#[derive(Debug)]
pub(super) struct Accepting<'a> {
    watched: &'a Watched,
    call: Option<(BookId, CallId)>,
}

impl Accepting<'_> {
    /// From now on somebody else sees to it that it is told how it went.
    pub(super) fn hand_on(mut self) {
        self.call = None;
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        if let Some((book, id)) = self.call {
            self.watched.end_accepting(book, id, State::Open);
        }
    }
}
