//! Named reservations: found by id for as long as they may be settled, then forgotten.
//!
//! Checkpoints write them; how they ended is in the ledger.

use sqlx::{QueryBuilder, query};
use weir_core::units::{Micros, ReservationId};

use super::{Conn, Db, decode, push_among};
use crate::failure::Failure;
use crate::rows::ReservationRow;

/// One of them.
pub(super) async fn find(
    connection: &mut Conn,
    id: ReservationId,
) -> Result<Option<ReservationRow>, Failure> {
    Ok(find_among(connection, &[id]).await?.pop())
}

/// Those of these that exist, in no order.
pub(super) async fn find_among(
    connection: &mut Conn,
    ids: &[ReservationId],
) -> Result<Vec<ReservationRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        reservation_columns!(),
        " FROM quota_reservations q WHERE q.id"
    ));
    push_among(&mut select, ids.iter().map(|id| id.uuid()));
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, decode::reservation)
}

/// Forgets at most `limit` whose holds returned before `before`.
pub(super) async fn forget(
    connection: &mut Conn,
    before: Micros,
    limit: u32,
) -> Result<u64, Failure> {
    let statement = "DELETE FROM quota_reservations WHERE id IN \
                     (SELECT q.id FROM quota_reservations q WHERE q.expires_at < $1 LIMIT $2)";
    let done =
        query(statement).bind(before.get()).bind(i64::from(limit)).execute(connection).await?;
    Ok(done.rows_affected())
}
