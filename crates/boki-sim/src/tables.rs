//! The index at size: at moments that the seed chooses, what is recent of an engine's index is frozen, a table is installed,
//! tables are merged. No answer may depend on it.

use std::sync::Arc;

use boki_log::NodeId;
use boki_log::index::{Entries, MemoryTable};

use crate::violation::{Checked, Violation};
use crate::world::World;

fn table(entries: Entries<'_>) -> Checked<Arc<MemoryTable>> {
    let unreadable = |error| Violation { check: "index", detail: format!("a table in memory cannot be read: {error}") };
    MemoryTable::new(entries).map(Arc::new).map_err(unreadable)
}

impl World {
    /// Perhaps takes a step of keeping the index of `id`.
    pub(crate) fn keep_index(&mut self, id: NodeId) -> Checked {
        if !self.rng.index.chance(self.plan.index_per_mille) {
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(index) = node.machine.as_mut().and_then(|machine| machine.index_mut()) else { return Ok(()) };
        let number = node.next_table;
        let what = match self.rng.index.below(4) {
            0 => {
                node.freeze = Some(index.freeze());
                "index frozen"
            }
            // What was frozen and not written is written with what is frozen next.
            1 if self.rng.index.chance(100) => {
                node.freeze = None;
                "index not written"
            }
            1 | 2 => {
                let Some(freeze) = node.freeze.take() else { return Ok(()) };
                let Some(entries) = freeze.entries() else { return Ok(()) };
                index.install(freeze.info(number, 1), table(entries)?);
                "index tables"
            }
            _ => {
                let first = self.rng.index.below(3) as usize;
                let count = self.rng.index.between(1, 3) as usize;
                let Some(merge) = index.merge(first, first + count) else { return Ok(()) };
                index.install_merged(&merge, merge.info(number, 1), table(merge.entries())?);
                "index merges"
            }
        };
        node.next_table += 1;
        self.count(what);
        Ok(())
    }
}
