//! Which operation a worker does not survive.

use std::fmt;

use boki_log::batch::Kind;
use boki_log::op::Append;
use boki_net::Frame;
use boki_wire::{Call, Message, kinds};
use parking_lot::Mutex;

/// Something that a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It is about to begin.
    Start,
    Append,
    Trim,
    Read,
    Tail,
    Tags,
    SetAux,
    Call,
    Send,
    /// It has returned, which nobody has heard yet.
    Return,
}

const NAMES: &[(&str, Operation)] = &[
    ("start", Operation::Start),
    ("append", Operation::Append),
    ("trim", Operation::Trim),
    ("read", Operation::Read),
    ("tail", Operation::Tail),
    ("tags", Operation::Tags),
    ("set_aux", Operation::SetAux),
    ("call", Operation::Call),
    ("send", Operation::Send),
    ("return", Operation::Return),
];

impl Operation {
    /// The operation of a name; without one, a list of those that there are.
    pub(crate) fn named(name: &str) -> Result<Operation, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, operation)| *operation).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("there is no operation {name:?}; there are: {}", names.join(", "))
        })
    }

    /// What a question of a worker asks for, if it is an operation.
    fn asked(frame: &Frame) -> Option<Operation> {
        Some(match frame.kind {
            kinds::APPEND => match Append::decode(&frame.body).ok()?.batch.kind() {
                Kind::Records => Operation::Append,
                Kind::Trim { .. } => Operation::Trim,
            },
            kinds::READ => Operation::Read,
            kinds::TAIL => Operation::Tail,
            kinds::TAGS => Operation::Tags,
            kinds::SET_AUX => Operation::SetAux,
            kinds::CALL if Call::decode(&frame.body).ok()?.detached => Operation::Send,
            kinds::CALL => Operation::Call,
            _ => return None,
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, operation)| operation == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// A crash that is to come.
#[derive(Debug)]
struct Planned {
    operation: Operation,
    /// At which one of an attempt.
    nth: u32,
    /// How many there were in the attempt that runs.
    seen: u32,
}

/// The crashes that are to come; each happens once.
#[derive(Debug, Default)]
pub(crate) struct Crashes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    planned: Vec<Planned>,
    /// Attempts that the worker has not answered.
    running: u32,
}

impl Crashes {
    pub(crate) fn plan(&self, operation: Operation, nth: u32) {
        self.0.lock().planned.push(Planned { operation, nth: nth.max(1), seen: 0 });
    }

    /// A worker has connected: it runs nothing.
    pub(crate) fn connected(&self) {
        let mut state = self.0.lock();
        state.running = 0;
        state.planned.iter_mut().for_each(|planned| planned.seen = 0);
    }

    /// An attempt begins. Returns whether the worker does not survive that.
    pub(crate) fn begins(&self) -> bool {
        let mut state = self.0.lock();
        state.running += 1;
        if state.running == 1 {
            // What is counted is counted in one attempt. Of several at once nobody could tell them apart.
            state.planned.iter_mut().for_each(|planned| planned.seen = 0);
        }
        state.happens(Operation::Start)
    }

    /// A question goes to the server. Returns whether the worker will not hear the answer.
    pub(crate) fn asks(&self, frame: &Frame) -> bool {
        Operation::asked(frame).is_some_and(|operation| self.0.lock().happens(operation))
    }

    /// An attempt has returned. Returns whether nobody is to hear that.
    pub(crate) fn returns(&self) -> bool {
        let mut state = self.0.lock();
        state.running = state.running.saturating_sub(1);
        state.happens(Operation::Return)
    }
}

impl State {
    fn happens(&mut self, operation: Operation) -> bool {
        let mut crashes = false;
        self.planned.retain_mut(|planned| {
            if planned.operation != operation || crashes {
                return true;
            }
            planned.seen += 1;
            crashes = planned.seen == planned.nth;
            !crashes
        });
        crashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_in_one_attempt_and_a_crash_happens_once() {
        let crashes = Crashes::default();
        crashes.plan(Operation::Return, 1);
        crashes.connected();
        assert!(!crashes.begins());
        assert!(crashes.returns());
        assert!(!crashes.begins());
        assert!(!crashes.returns());
    }

    #[test]
    fn a_later_attempt_begins_to_count_anew() {
        let crashes = Crashes::default();
        crashes.plan(Operation::Tail, 2);
        let mut state = crashes.0.lock();
        assert!(!state.happens(Operation::Tail));
        drop(state);
        assert!(!crashes.begins());
        state = crashes.0.lock();
        assert!(!state.happens(Operation::Tail));
        assert!(!state.happens(Operation::Read));
        assert!(state.happens(Operation::Tail));
        assert!(!state.happens(Operation::Tail));
    }

    #[test]
    fn an_operation_has_one_of_the_names() {
        for (name, operation) in NAMES {
            assert_eq!(Operation::named(name), Ok(*operation));
            assert_eq!(operation.to_string(), *name);
        }
        assert!(Operation::named("fly").is_err_and(|text| text.contains("append")));
    }
}
