//! Brings a database's tables up to date.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::MigrateError;

use super::session::bounded;
use super::{Conn, MIGRATIONS, verdict};
use crate::failure::Call;
use crate::{Error, Result};

/// Opens a connection and runs the migrations that are not there yet; returns the connection.
pub(super) async fn migrated(
    connect: &<Conn as sqlx::Connection>::Options,
    limit: Duration,
) -> Result<Conn> {
    let call = Call::new("migrate");
    bounded(&call, limit, async {
        let failed = |error: sqlx::Error| call.failed(error.into(), verdict);
        let mut connection = Conn::connect_with(connect).await.map_err(failed)?;
        // `run` has a bound that no future which is `Send` meets (rust-lang/rust#100013); sqlx's
        // own tools call what it calls.
        MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                failed(error)
            }
            other => Error::Broken { operation: "migrate", source: Box::new(other) },
        })?;
        Ok(connection)
    })
    .await
}
