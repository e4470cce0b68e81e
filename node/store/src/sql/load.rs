//! What actors start from: subscription, plan version, checkpoint, and the ledger after it.
//!
//! The checkpoint is read before the tail. What is appended in between then shows up in the tail,
//! after the checkpoint's `last_seq`, where it belongs; no snapshot is needed.

use std::collections::{BTreeMap, HashMap};

use sqlx::QueryBuilder;
use weir_core::units::{Seq, ShardId, SubscriptionId};

use super::{Conn, Db, decode, ledger, push_among};
use crate::Loaded;
use crate::failure::Failure;
use crate::rows::LedgerRow;

/// Loads many at once; ids that do not exist are absent.
pub(super) async fn load(
    connection: &mut Conn,
    wanted: &[(SubscriptionId, ShardId, Seq)],
) -> Result<Vec<Loaded>, Failure> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<SubscriptionId> = wanted.iter().map(|(id, _, _)| *id).collect();
    let mut loaded = heads(connection, &ids).await?;
    let mut tails = tails(connection, wanted, &ids).await?;
    for head in &mut loaded {
        let last = head.checkpoint.as_ref().map_or(Seq(0), |checkpoint| checkpoint.last_seq);
        let mut tail = tails.remove(&head.subscription.id).unwrap_or_default();
        tail.retain(|row| row.seq > last);
        head.tail = tail;
    }
    Ok(loaded)
}

/// Everything but the tails.
async fn heads(connection: &mut Conn, ids: &[SubscriptionId]) -> Result<Vec<Loaded>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        subscription_columns!(),
        ", (SELECT max(p.version) FROM pricing_models p WHERE p.id = s.plan_id), ",
        checkpoint_columns!(),
        " FROM api_subscriptions s \
         LEFT JOIN subscription_checkpoints c ON c.subscription_id = s.id WHERE s.id"
    ));
    push_among(&mut select, ids.iter().map(|id| id.uuid()));
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        Ok(Loaded {
            subscription: decode::subscription(columns)?,
            // Only a deleted subscription can outlive its plan.
            plan_version: columns.take::<Option<i32>>()?.unwrap_or(0),
            checkpoint: decode::checkpoint_opt(columns)?,
            tail: Vec::new(),
        })
    })
}

/// Ledger rows of the subscriptions after what their shards have counted, found by shard: that part
/// of the ledger is as long as the last checkpoints are old, however long a subscription's own is.
async fn tails(
    connection: &mut Conn,
    wanted: &[(SubscriptionId, ShardId, Seq)],
    ids: &[SubscriptionId],
) -> Result<HashMap<SubscriptionId, Vec<LedgerRow>>, Failure> {
    let mut after: BTreeMap<ShardId, Seq> = BTreeMap::new();
    for &(_, shard, counted) in wanted {
        let lowest = after.entry(shard).or_insert(counted);
        *lowest = counted.min(*lowest);
    }
    let after: Vec<_> = after.into_iter().collect();
    let mut tails: HashMap<SubscriptionId, Vec<LedgerRow>> = HashMap::new();
    for row in ledger::after_for(connection, &after, ids).await? {
        tails.entry(row.subscription).or_default().push(row);
    }
    Ok(tails)
}
