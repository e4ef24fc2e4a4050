//! Which tables to merge. Tables are sorted into tiers by size; eight neighbours of a tier make one of the next. So a
//! table's entries are written again once per tier, and the number of tables grows with the logarithm of the log.

use std::ops::Range;

use super::table::TableInfo;

/// How many neighbours make a larger table.
const FAN_IN: usize = 8;
/// Largest table of the lowest tier, in bytes.
const LOWEST_BYTES: u64 = 4 << 20;
/// A table is written again by itself if at most one in so many of its records is left.
const WASTE: u64 = 4;

fn tier(info: &TableInfo) -> u32 {
    let mut tier = 0;
    let mut bytes = info.bytes / LOWEST_BYTES;
    while bytes > 0 {
        tier += 1;
        bytes /= FAN_IN as u64;
    }
    tier
}

/// The tables to merge next, as a range of `tables` (the oldest first). `living` says how many records that a table
/// covers are left.
pub(super) fn choose(tables: &[TableInfo], living: impl Fn(&TableInfo) -> u64) -> Option<Range<usize>> {
    let highest = tables.iter().map(tier).max()?;
    for most in 0..=highest {
        let mut start = 0;
        while start < tables.len() {
            let run = tables.get(start..)?.iter().take_while(|info| tier(info) <= most).count();
            let of_tier = tables.get(start..start + run)?.iter().filter(|info| tier(info) == most).count();
            if of_tier >= FAN_IN {
                return Some(start..start + run);
            }
            start += run + 1;
        }
    }
    let wasted = |info: &TableInfo| info.records > 0 && living(info) <= info.records / WASTE;
    tables.iter().position(wasted).map(|at| at..at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;

    fn tables(mebibytes: &[u64]) -> Vec<TableInfo> {
        let info = |(at, size): (u64, &u64)| TableInfo {
            number: at,
            from: Seq(at * 10),
            to: Seq(at * 10 + 10),
            bytes: size << 20,
            records: 10,
        };
        (0..).zip(mebibytes).map(info).collect()
    }

    #[test]
    fn eight_neighbours_of_a_tier_are_merged_and_fewer_are_not() {
        let all_alive = |info: &TableInfo| info.records;
        assert_eq!(choose(&tables(&[]), all_alive), None);
        assert_eq!(choose(&tables(&[100, 1, 1, 1, 1, 1, 1, 1]), all_alive), None);
        assert_eq!(choose(&tables(&[100, 1, 1, 1, 1, 1, 1, 1, 1]), all_alive), Some(1..9));
        assert_eq!(choose(&tables(&[9, 1, 9, 9, 9, 9, 1, 9, 9, 9, 2]), all_alive), Some(0..11));
        assert_eq!(choose(&tables(&[1, 1, 1, 1, 900, 1, 1, 1, 1]), all_alive), None, "neighbours only");
    }

    #[test]
    fn a_table_with_little_left_is_written_again_alone_once() {
        let mut tables = tables(&[100, 10, 1]);
        let living = |info: &TableInfo| if info.number == 1 { 2 } else { 10 };
        assert_eq!(choose(&tables, living), Some(1..2));
        tables[1].records = 2;
        assert_eq!(choose(&tables, living), None);
    }

    #[test]
    fn the_number_of_tables_and_the_bytes_written_grow_with_the_logarithm() {
        let (mut all, mut written) = (Vec::new(), 0);
        for number in 0..4096 {
            let info = TableInfo { number, from: Seq(number), to: Seq(number + 1), bytes: 2 << 20, records: 1 };
            written += info.bytes;
            all.push(info);
            while let Some(range) = choose(&all, |info| info.records) {
                let inputs: Vec<_> = all.drain(range.clone()).collect();
                let bytes = inputs.iter().map(|info| info.bytes).sum();
                written += bytes;
                let (first, last) = (inputs[0], inputs[inputs.len() - 1]);
                all.insert(range.start, TableInfo { to: last.to, bytes, ..first });
            }
        }
        assert!(all.len() < 40, "{} tables", all.len());
        let payload: u64 = all.iter().map(|info| info.bytes).sum();
        assert!(written <= 6 * payload, "each byte was written {} times", written / payload);
    }
}
