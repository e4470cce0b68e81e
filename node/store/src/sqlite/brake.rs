//! Stops a statement that nobody waits for any more.
//!
//! A statement runs on a thread of its connection. When a call runs out of time its connection is
//! dropped, but SQLite would work on to the end, and calls repeated meanwhile would pile up threads
//! (INV-6). So every connection looks now and then whether it is still wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnectOptions;

use super::Conn;

/// Instructions between two looks: some hundred microseconds of work, so that looking costs
/// nothing.
const INSTRUCTIONS: i32 = 10_000;

/// Goes with its connection; dropping it ends what runs there.
pub(super) struct Brake(Arc<AtomicBool>);

impl Drop for Brake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens a connection that stops with its brake.
pub(super) async fn open(options: &SqliteConnectOptions) -> sqlx::Result<(Conn, Brake)> {
    let mut connection = Conn::connect_with(options).await?;
    let unwanted = Arc::new(AtomicBool::new(false));
    let brake = Brake(Arc::clone(&unwanted));
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(INSTRUCTIONS, move || !unwanted.load(Ordering::Relaxed));
    drop(handle);
    Ok((connection, brake))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_statement_without_end_ends_with_its_brake() {
        let (mut connection, brake) =
            open(&SqliteConnectOptions::new().in_memory(true)).await.expect("open");
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT count(*) FROM n";
        let running =
            tokio::spawn(async move { sqlx::query(endless).fetch_all(&mut connection).await });
        drop(brake);
        assert!(running.await.expect("a task").is_err());
    }
}
