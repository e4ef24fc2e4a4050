//! What the research system of 2021 promises, and a re-implementation must: the tests that its authors' paper and
//! code call for, as far as they concern one machine. Each test has the number of that list in its name. Where our
//! model differs, the test says how, and tests the promise that takes its place.

#![allow(clippy::unwrap_used)]

mod aux_data;
mod durability;
mod ordering;
mod positions;
mod reads;
mod records;
mod support;
