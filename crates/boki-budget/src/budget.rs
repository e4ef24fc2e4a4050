//! The budget: how many instructions each operation may take.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::load::Load;

/// How far above the budget a count may be, in percent of it. Counts of the same program differ by less than one percent: how
/// threads meet at locks is not always the same.
const TOLERANCE_PERCENT: u64 = 5;

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Instructions per operation, by the load's name.
    instructions: BTreeMap<String, u64>,
}

/// Why the budget cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BudgetError {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", .path.display())]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("the budget cannot be written: {0}")]
    Write(#[from] toml::ser::Error),
}

/// How a count compares with the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Within {
        budget: u64,
    },
    /// So much below that the budget no longer guards what was won.
    Below {
        budget: u64,
    },
    Above {
        budget: u64,
    },
    NoBudget,
}

impl Budget {
    pub(crate) fn read(path: &Path) -> Result<Budget, BudgetError> {
        let text = fs::read_to_string(path).map_err(|source| BudgetError::Io { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| BudgetError::Syntax { path: path.to_owned(), source })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), BudgetError> {
        let text = format!(
            "# Instructions in user space that one operation may take, give or take {TOLERANCE_PERCENT} %. docs/performance.md says how\n\
             # they are counted. After a change that is worth more: cargo run --release -p boki-budget -- --write\n\n{}",
            toml::to_string(self)?
        );
        fs::write(path, text).map_err(|source| BudgetError::Io { path: path.to_owned(), source })
    }

    pub(crate) fn set(&mut self, load: Load, counted: u64) {
        self.instructions.insert(load.to_string(), counted);
    }

    pub(crate) fn judge(&self, load: Load, counted: u64) -> Verdict {
        let Some(&budget) = self.instructions.get(&load.to_string()) else { return Verdict::NoBudget };
        if counted * 100 > budget * (100 + TOLERANCE_PERCENT) {
            Verdict::Above { budget }
        } else if counted * 100 < budget * (100 - TOLERANCE_PERCENT) {
            Verdict::Below { budget }
        } else {
            Verdict::Within { budget }
        }
    }
}

impl Verdict {
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Verdict::Above { .. } | Verdict::NoBudget)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Within { budget } => write!(f, "within the budget of {budget}"),
            Verdict::Below { budget } => write!(f, "below the budget of {budget}: lower it with --write"),
            Verdict::Above { budget } => {
                write!(f, "ABOVE the budget of {budget} by more than {TOLERANCE_PERCENT} %")
            }
            Verdict::NoBudget => f.write_str("without a budget: set one with --write"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_is_within_and_anything_above_is_not() {
        let mut budget = Budget::default();
        assert!(budget.judge(Load::Append, 1).is_failure(), "nobody has set it");
        budget.set(Load::Append, 1000);
        for (counted, verdict) in [
            (949, Verdict::Below { budget: 1000 }),
            (950, Verdict::Within { budget: 1000 }),
            (1050, Verdict::Within { budget: 1000 }),
            (1051, Verdict::Above { budget: 1000 }),
        ] {
            assert_eq!(budget.judge(Load::Append, counted), verdict, "{counted}");
        }
        assert!(!budget.judge(Load::Append, 949).is_failure());
        assert!(budget.judge(Load::Append, 1051).is_failure());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("budget.toml");
        let mut budget = Budget::default();
        for (load, counted) in Load::ALL.into_iter().zip(7..) {
            budget.set(load, counted);
        }
        budget.write(&path).expect("written");
        assert_eq!(Budget::read(&path).expect("read"), budget);
    }
}
