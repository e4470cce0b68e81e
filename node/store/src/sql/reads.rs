//! Reads of the ledger and of checkpoints for people: the request log, one record, the fullest
//! quotas.

use sqlx::{QueryBuilder, query};
use weir_core::units::{Micros, SubscriptionId};

use super::subscriptions::push_reach;
use super::{Conn, Db, decode, page};
use crate::failure::Failure;
use crate::number;
use crate::rows::{CheckpointRow, LedgerRow, OutcomeKind, RowKind};
use crate::{Page, Reach, RecordFilter};

/// A page of the request log, newest first. A release is no request.
pub(super) async fn records(
    connection: &mut Conn,
    filter: &RecordFilter,
) -> Result<Page<LedgerRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        ledger_columns!(),
        " FROM usage_records r WHERE r.subscription_id = "
    ));
    select.push_bind(filter.subscription.uuid());
    select.push(" AND r.event_time >= ").push_bind(filter.from.get());
    select.push(" AND r.event_time < ").push_bind(filter.to.get());
    select.push(" AND (r.kind = ").push_bind(RowKind::Usage as i16);
    select.push(" OR (r.kind = ").push_bind(RowKind::Commit as i16);
    select.push(" AND r.outcome <> ").push_bind(OutcomeKind::Denied as i16).push("))");
    if let Some(status) = filter.status {
        select.push(" AND r.status_code = ").push_bind(status);
    }
    if let Some(path) = &filter.path {
        select.push(" AND r.api_path = ").push_bind(path.clone());
    }
    if let Some((time, seq)) = filter.before {
        // The first half is implied by the second; it lets partitions be left out.
        select.push(" AND r.event_time <= ").push_bind(time.get());
        select.push(" AND (r.event_time, r.seq) < (").push_bind(time.get());
        select.push(", ").push_bind(number::seq(seq)).push(")");
    }
    select
        .push(" ORDER BY r.event_time DESC, r.seq DESC LIMIT ")
        .push_bind(page::fetch(filter.limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, decode::ledger)?, filter.limit))
}

/// One row by identity, through the place that the identity keeps.
pub(super) async fn find_record(
    connection: &mut Conn,
    subscription: SubscriptionId,
    kind: RowKind,
    event_id: &str,
) -> Result<Option<LedgerRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        ledger_columns!(),
        " FROM usage_event_ids i JOIN usage_records r ON r.subscription_id = i.subscription_id \
         AND r.event_time = i.event_time AND r.seq = i.seq AND r.kind = i.kind \
         WHERE i.subscription_id = $1 AND i.event_id = $2 AND i.kind = $3"
    );
    let row = query(statement)
        .bind(subscription.uuid())
        .bind(event_id)
        .bind(kind as i16)
        .fetch_optional(connection)
        .await?;
    decode::maybe(row.as_ref(), decode::ledger)
}

/// Checkpoints by used / limit, fullest first. A limit of nothing is always full; no limit is
/// never.
pub(super) async fn fullest(
    connection: &mut Conn,
    reach: &Reach,
    now: Micros,
    limit: u32,
) -> Result<Vec<CheckpointRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        checkpoint_columns!(),
        " FROM subscription_checkpoints c JOIN api_subscriptions s ON s.id = c.subscription_id \
         WHERE s.status <> 2"
    ));
    push_reach(&mut select, reach);
    // What was used in a period that is over stands against no limit any more.
    select.push(" AND c.period_start <= ").push_bind(now.get());
    select.push(" AND c.period_end > ").push_bind(now.get());
    select.push(
        " ORDER BY c.quota_limit IS NULL, \
         CASE WHEN c.quota_limit > 0 THEN CAST(c.used AS DOUBLE PRECISION) / c.quota_limit END \
         DESC NULLS FIRST, c.subscription_id LIMIT ",
    );
    select.push_bind(i64::from(limit));
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, decode::checkpoint)
}
