//! Nodes, leases and the ownership of shards, in a cluster of one.
//!
//! Every call here is one transaction of the only writer, so what it reads cannot change before it
//! writes; the rules are otherwise those of Postgres.

use sqlx::{query, query_scalar};
use uuid::Uuid;
use weir_core::units::{Epoch, Seq, ShardId};

use super::{Conn, decode};
use crate::failure::Failure;
use crate::number;
use crate::rows::{MemberRow, NodeRow, SEAL};
use crate::{HandOver, ShardState};

/// Takes the wanted shards that are ours or whose owner is gone.
const CLAIM: &str = "\
    UPDATE shards SET epoch = epoch + 1, owner_incarnation = $1 \
    WHERE shard_id IN (SELECT value FROM json_each($2)) \
    AND (owner_incarnation IS NULL OR owner_incarnation = $1 OR NOT EXISTS ( \
        SELECT 1 FROM nodes n WHERE n.incarnation = owner_incarnation \
        AND n.state IN ('joining', 'up', 'draining'))) \
    RETURNING shard_id";

/// Epochs, cursors and the last row of the ledger. Rows that were archived may have held it; the
/// cursors, which are never ahead of it, then stand in.
const STATES: &str = "\
    SELECT s.shard_id, s.epoch, s.owner_incarnation, p.counted, p.rolled, max(p.counted, p.rolled, \
        COALESCE((SELECT max(r.seq) FROM usage_records r WHERE r.shard_id = s.shard_id), 0)) \
    FROM shards s JOIN shard_progress p ON p.shard_id = s.shard_id";

/// Answers when the database answers.
pub(super) async fn ping(connection: &mut Conn) -> Result<(), Failure> {
    query("SELECT 1").execute(connection).await?;
    Ok(())
}

/// Folds what it can of the write-ahead log into the file.
pub(super) async fn fold_log(connection: &mut Conn) -> Result<(), Failure> {
    query("PRAGMA wal_checkpoint(PASSIVE)").fetch_all(connection).await?;
    Ok(())
}

/// Fixes the shard count once and makes the rows; returns the count that is fixed.
pub(super) async fn init_shards(connection: &mut Conn, shard_count: u16) -> Result<u16, Failure> {
    query("INSERT INTO cluster_meta (id, shard_count) VALUES (1, $1) ON CONFLICT DO NOTHING")
        .bind(i32::from(shard_count))
        .execute(&mut *connection)
        .await?;
    let fixed: i32 = query_scalar("SELECT shard_count FROM cluster_meta WHERE id = 1")
        .fetch_one(&mut *connection)
        .await?;
    let numbers = "WITH RECURSIVE numbers (n) AS \
                   (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < $1)";
    for insert in [
        "INSERT INTO shards (shard_id, epoch) SELECT n, 0 FROM numbers WHERE TRUE",
        "INSERT INTO shard_progress (shard_id) SELECT n FROM numbers WHERE TRUE",
    ] {
        let statement = format!("{numbers} {insert} ON CONFLICT DO NOTHING");
        query(sqlx::AssertSqlSafe(statement)).bind(fixed).execute(&mut *connection).await?;
    }
    number::shard_id(fixed).map(|count| count.0)
}

/// Finds a living node that knows another secret.
async fn is_sealed_otherwise(connection: &mut Conn, node: &NodeRow) -> Result<bool, Failure> {
    let statement = "SELECT EXISTS (SELECT 1 FROM nodes WHERE id <> $1 AND seal NOT IN ('', $2) \
                         AND state IN ('joining', 'up', 'draining') \
                         AND lease_until > CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000)";
    Ok(query_scalar(statement).bind(&node.id).bind(&node.seal).fetch_one(connection).await?)
}

/// Registers a boot in place of the node's earlier one, whose batch numbers nobody will ask for
/// again.
pub(super) async fn join(
    connection: &mut Conn,
    node: &NodeRow,
    lease_ms: u32,
) -> Result<(), Failure> {
    if !node.seal.is_empty() && is_sealed_otherwise(connection, node).await? {
        return Err(Failure::Conflict(SEAL));
    }
    query(
        "DELETE FROM checkpoint_batches WHERE incarnation IN \
           (SELECT incarnation FROM nodes WHERE id = $1 AND incarnation <> $2)",
    )
    .bind(&node.id)
    .bind(node.incarnation)
    .execute(&mut *connection)
    .await?;
    let statement = "INSERT INTO nodes AS n (id, incarnation, http, cluster, state, lease_until, seal) \
         VALUES ($1, $2, $3, $4, 'up', \
             CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 + $5 * 1000, $6) \
         ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, http = excluded.http, \
             cluster = excluded.cluster, state = excluded.state, \
             lease_until = excluded.lease_until, seal = excluded.seal \
         WHERE n.incarnation <> excluded.incarnation OR n.state NOT IN ('dead', 'left')";
    let done = query(statement)
        .bind(&node.id)
        .bind(node.incarnation)
        .bind(&node.http)
        .bind(&node.cluster)
        .bind(i64::from(lease_ms))
        .bind(&node.seal)
        .execute(connection)
        .await
        .map_err(|error| Failure::on_unique(error, "incarnation"))?;
    // Death is final for an incarnation: others may already act on it.
    if done.rows_affected() == 1 { Ok(()) } else { Err(Failure::Conflict("incarnation")) }
}

/// Prolongs a lease, unless the incarnation was replaced or declared dead.
pub(super) async fn renew(
    connection: &mut Conn,
    incarnation: Uuid,
    lease_ms: u32,
) -> Result<bool, Failure> {
    let statement = "UPDATE nodes SET lease_until = \
                         CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 + $2 * 1000 \
                     WHERE incarnation = $1 AND state IN ('joining', 'up', 'draining')";
    let done =
        query(statement).bind(incarnation).bind(i64::from(lease_ms)).execute(connection).await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the lease and gives the shards up.
pub(super) async fn leave(connection: &mut Conn, incarnation: Uuid) -> Result<(), Failure> {
    let statement = "UPDATE nodes SET state = 'left', \
                         lease_until = CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 \
                     WHERE incarnation = $1 AND state IN ('joining', 'up', 'draining')";
    query(statement).bind(incarnation).execute(&mut *connection).await?;
    query("UPDATE shards SET owner_incarnation = NULL WHERE owner_incarnation = $1")
        .bind(incarnation)
        .execute(connection)
        .await?;
    Ok(())
}

/// Other nodes whose lease still runs.
pub(super) async fn others_alive(
    connection: &mut Conn,
    incarnation: Uuid,
) -> Result<Vec<NodeRow>, Failure> {
    let statement = "SELECT id, incarnation, http, cluster, seal FROM nodes \
         WHERE incarnation <> $1 AND state IN ('joining', 'up', 'draining') \
         AND lease_until > CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000 ORDER BY id";
    let rows = query(statement).bind(incarnation).fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        Ok(NodeRow {
            id: columns.take()?,
            incarnation: columns.take()?,
            http: columns.take()?,
            cluster: columns.take()?,
            seal: columns.take()?,
        })
    })
}

/// Marks nodes whose lease has run out as dead.
pub(super) async fn bury_expired(connection: &mut Conn) -> Result<(), Failure> {
    let statement = "UPDATE nodes SET state = 'dead' WHERE state IN ('joining', 'up', 'draining') \
                     AND lease_until <= CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000";
    query(statement).execute(connection).await?;
    Ok(())
}

/// Takes every wanted shard that has no living owner or is ours.
pub(super) async fn claim(
    connection: &mut Conn,
    incarnation: Uuid,
    wanted: &[ShardId],
) -> Result<Vec<ShardState>, Failure> {
    let alive: bool = query_scalar(
        "SELECT EXISTS (SELECT 1 FROM nodes WHERE incarnation = $1 \
         AND state IN ('joining', 'up', 'draining') \
         AND lease_until > CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000)",
    )
    .bind(incarnation)
    .fetch_one(&mut *connection)
    .await?;
    if !alive {
        return Err(Failure::Fenced(wanted.to_vec()));
    }
    let numbers: Vec<u16> = wanted.iter().map(|shard| shard.0).collect();
    let taken: Vec<i32> = query_scalar(CLAIM)
        .bind(incarnation)
        .bind(serde_json::Value::from(numbers).to_string())
        .fetch_all(&mut *connection)
        .await?;
    let statement = format!(
        "{STATES} WHERE s.shard_id IN (SELECT value FROM json_each($1)) ORDER BY s.shard_id"
    );
    let rows = query(sqlx::AssertSqlSafe(statement))
        .bind(serde_json::Value::from(taken).to_string())
        .fetch_all(connection)
        .await?;
    decode::all(&rows, state)
}

/// Every node.
pub(super) async fn members(connection: &mut Conn) -> Result<Vec<MemberRow>, Failure> {
    let statement = "SELECT id, incarnation, http, cluster, seal, state, \
         (lease_until - CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000) / 1000 \
         FROM nodes ORDER BY id";
    let rows = query(statement).fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        let node = NodeRow {
            id: columns.take()?,
            incarnation: columns.take()?,
            http: columns.take()?,
            cluster: columns.take()?,
            seal: columns.take()?,
        };
        Ok(MemberRow { node, state: columns.take()?, lease_left_ms: columns.take()? })
    })
}

/// Asks one boot of a node to give its shards away.
pub(super) async fn drain_boot(connection: &mut Conn, boot: Uuid) -> Result<bool, Failure> {
    let statement = "UPDATE nodes SET state = 'draining' \
                     WHERE incarnation = $1 AND state IN ('joining', 'up', 'draining')";
    Ok(query(statement).bind(boot).execute(connection).await?.rows_affected() == 1)
}

/// Asks a node to give its shards away.
pub(super) async fn drain(connection: &mut Conn, node: &str) -> Result<bool, Failure> {
    let statement = "UPDATE nodes SET state = 'draining' \
                     WHERE id = $1 AND state IN ('joining', 'up', 'draining')";
    Ok(query(statement).bind(node).execute(connection).await?.rows_affected() == 1)
}

/// Gives shards to another boot.
pub(super) async fn hand_over(
    connection: &mut Conn,
    from: Uuid,
    to: Uuid,
    shards: &[HandOver],
) -> Result<Vec<(ShardId, Epoch)>, Failure> {
    let heir_is_up: bool = query_scalar(
        "SELECT EXISTS (SELECT 1 FROM nodes WHERE incarnation = $1 AND state = 'up' \
         AND lease_until > CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000)",
    )
    .bind(to)
    .fetch_one(&mut *connection)
    .await?;
    let mut given = Vec::new();
    for offered in shards.iter().filter(|_| heir_is_up) {
        let epoch = number::epoch(offered.epoch);
        let done = query(
            "UPDATE shards SET owner_incarnation = $1, epoch = epoch + 1 \
             WHERE shard_id = $2 AND epoch = $3 AND owner_incarnation = $4",
        )
        .bind(to)
        .bind(number::shard(offered.shard))
        .bind(epoch)
        .bind(from)
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() == 1 {
            let raise = "UPDATE shard_progress SET counted = max(counted, $1) WHERE shard_id = $2";
            query(raise)
                .bind(number::seq(offered.counted))
                .bind(number::shard(offered.shard))
                .execute(&mut *connection)
                .await?;
            given.push((offered.shard, Epoch(offered.epoch.0 + 1)));
        }
    }
    Ok(given)
}

/// All shards.
pub(super) async fn shards(connection: &mut Conn) -> Result<Vec<ShardState>, Failure> {
    let statement = "SELECT s.shard_id, s.epoch, s.owner_incarnation, p.counted, p.rolled, \
                     max(p.counted, p.rolled) FROM shards s \
                     JOIN shard_progress p ON p.shard_id = s.shard_id ORDER BY s.shard_id";
    let rows = query(statement).fetch_all(connection).await?;
    decode::all(&rows, state)
}

fn state(columns: &mut decode::Columns<'_>) -> Result<ShardState, Failure> {
    Ok(ShardState {
        shard: number::shard_id(columns.take()?)?,
        epoch: Epoch(number::unsigned(columns.take()?)?),
        owner: columns.take()?,
        counted: Seq(number::unsigned(columns.take()?)?),
        rolled: Seq(number::unsigned(columns.take()?)?),
        last: Seq(number::unsigned(columns.take()?)?),
    })
}
