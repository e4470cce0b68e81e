//! Many rows per statement.
//!
//! A statement per row costs a trip to the connection's thread each; one statement for all rows
//! would have a text of its own for every batch size and be parsed each time. So rows go in chunks
//! of a few fixed sizes, whose statements stay prepared.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::{Conn, Db};
use crate::failure::Failure;

/// A statement with its parameters bound so far.
pub(super) type Binding<'q> = Query<'q, Db, SqliteArguments>;

/// Rows per chunk, descending. The largest times the widest table (24 columns) stays far below
/// SQLite's 32,766 parameters; larger chunks gain little and take longer to parse the first time.
const SIZES: [usize; 3] = [128, 16, 1];

/// An insert of so many columns, its text made once.
pub(super) struct Bulk {
    sized: [String; SIZES.len()],
}

impl Bulk {
    /// `head` up to and including VALUES; `tail` what follows the rows.
    pub(super) fn new(head: &str, columns: usize, tail: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        Self {
            sized: SIZES
                .map(|size| format!("{head} {} {tail}", vec![row.as_str(); size].join(","))),
        }
    }

    /// Inserts the rows; returns what the statement returns.
    pub(super) async fn run<T>(
        &'static self,
        connection: &mut Conn,
        rows: &[T],
        bind: impl for<'q> Fn(Binding<'q>, &'q T) -> Binding<'q>,
    ) -> Result<Vec<SqliteRow>, Failure> {
        let mut returned = Vec::new();
        let mut rest = rows;
        for (text, size) in self.sized.iter().zip(SIZES) {
            while rest.len() >= size {
                let (chunk, after) = rest.split_at(size);
                let statement = chunk.iter().fold(sqlx::query(text.as_str()), &bind);
                returned.extend(statement.fetch_all(&mut *connection).await?);
                rest = after;
            }
        }
        debug_assert!(rest.is_empty(), "the last size is one row");
        Ok(returned)
    }
}
