//! Pages: one row more than asked for tells whether there are more.

use crate::Page;

/// How many rows to fetch for a page of `limit`.
pub(super) fn fetch(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// Cuts what was fetched to the page.
pub(super) fn cut<T>(mut rows: Vec<T>, limit: u32) -> Page<T> {
    let limit = limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    Page { data: rows, more }
}
