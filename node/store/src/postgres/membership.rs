//! Nodes, leases and the ownership of shards.
//!
//! Why a claim cannot meet a living owner: a node is dead by a compare-and-set on its own row, the
//! row that its renewals write, so one of the two sees the other; dead and replaced are final for
//! an incarnation; and a shard is only taken at the epoch at which its owner was seen to be dead.

use std::collections::HashMap;

use sqlx::{query, query_scalar};
use uuid::Uuid;
use weir_core::units::{Epoch, Seq, ShardId};

use super::{Conn, decode};
use crate::failure::Failure;
use crate::number;
use crate::rows::{MemberRow, NodeRow, REWOUND, SEAL};
use crate::{HandOver, ShardState};

/// Locks, in order, the wanted shards that are ours or whose owner was seen to be gone. Waiting for
/// a lock, a row may change; it is then left alone unless epoch and owner are still those that were
/// seen.
const LOCK_CLAIMABLE: &str = "\
    WITH seen AS MATERIALIZED ( \
        SELECT s.shard_id, s.epoch, s.owner_incarnation \
        FROM shards s LEFT JOIN nodes n ON n.incarnation = s.owner_incarnation \
        WHERE s.shard_id = ANY($1) AND (s.owner_incarnation IS NULL OR s.owner_incarnation = $2 \
            OR n.incarnation IS NULL OR n.state IN ('dead', 'left')) \
    ) \
    SELECT s.shard_id FROM shards s JOIN seen ON seen.shard_id = s.shard_id \
    WHERE s.epoch = seen.epoch AND s.owner_incarnation IS NOT DISTINCT FROM seen.owner_incarnation \
    ORDER BY s.shard_id FOR UPDATE OF s";

/// Cursors, and the last row of the ledger. A partition that was archived and dropped may have held
/// it; the cursors, which are never ahead of it, then stand in.
const CURSORS: &str = "\
    SELECT p.shard_id, p.counted, p.rolled, GREATEST(p.counted, p.rolled, \
        (SELECT r.seq FROM usage_records r WHERE r.shard_id = p.shard_id \
         ORDER BY r.seq DESC LIMIT 1)) \
    FROM shard_progress p WHERE p.shard_id = ANY($1)";

/// Answers when the database answers.
pub(super) async fn ping(connection: &mut Conn) -> Result<(), Failure> {
    query("SELECT 1").execute(connection).await?;
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
    let shards = "INSERT INTO shards (shard_id, epoch) \
                  SELECT n, 0 FROM generate_series(0, $1 - 1) n \
                  ON CONFLICT DO NOTHING";
    query(shards).bind(fixed).execute(&mut *connection).await?;
    let progress = "INSERT INTO shard_progress (shard_id) \
                    SELECT n FROM generate_series(0, $1 - 1) n \
                    ON CONFLICT DO NOTHING";
    query(progress).bind(fixed).execute(connection).await?;
    number::shard_id(fixed).map(|count| count.0)
}

/// Finds a living node that knows another secret. Whoever joins has written the one row of `cluster_meta`
/// before, so of two strangers that come at once the second sees the first.
async fn is_sealed_otherwise(connection: &mut Conn, node: &NodeRow) -> Result<bool, Failure> {
    let statement = "SELECT EXISTS (SELECT 1 FROM nodes WHERE id <> $1 AND seal NOT IN ('', $2) \
                         AND state IN ('joining', 'up', 'draining') \
                         AND lease_until > clock_timestamp())";
    Ok(query_scalar(statement).bind(&node.id).bind(&node.seal).fetch_one(connection).await?)
}

/// Registers a boot in place of the node's earlier one, whose batch numbers nobody will ask for
/// again. Returns which one it is of all that have joined.
pub(super) async fn join(
    connection: &mut Conn,
    node: &NodeRow,
    lease_ms: u32,
) -> Result<i64, Failure> {
    let counted =
        query("UPDATE cluster_meta SET joins = joins + 1 WHERE id = 1 RETURNING joins, rewound")
            .fetch_optional(&mut *connection)
            .await?;
    let counted =
        decode::maybe(counted.as_ref(), |columns| Ok((columns.take()?, columns.take()?)))?;
    let (number, rewound): (i64, bool) = counted.unwrap_or_default();
    if rewound {
        return Err(Failure::Conflict(REWOUND));
    }
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
         VALUES ($1, $2, $3, $4, 'up', clock_timestamp() + $5 * interval '1 millisecond', $6) \
         ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, http = excluded.http, \
             cluster = excluded.cluster, state = excluded.state, \
             lease_until = excluded.lease_until, seal = excluded.seal, beats = 0 \
         WHERE n.incarnation <> excluded.incarnation OR n.state NOT IN ('dead', 'left')";
    let done = query(statement)
        .bind(&node.id)
        .bind(node.incarnation)
        .bind(&node.http)
        .bind(&node.cluster)
        .bind(f64::from(lease_ms))
        .bind(&node.seal)
        .execute(connection)
        .await
        .map_err(|error| Failure::on_unique(error, "incarnation"))?;
    // Death is final for an incarnation: others may already act on it.
    if done.rows_affected() == 1 { Ok(number) } else { Err(Failure::Conflict("incarnation")) }
}

/// Prolongs a lease, unless the incarnation was replaced or declared dead; then it is `None`. Returns how
/// often that was done. `expected`: joins and renewals that the database must know of.
pub(super) async fn renew(
    connection: &mut Conn,
    incarnation: Uuid,
    lease_ms: u32,
    expected: (i64, i64),
) -> Result<Option<i64>, Failure> {
    // The outer query sees what was there before.
    let statement = "WITH held AS (UPDATE nodes \
             SET lease_until = clock_timestamp() + $2 * interval '1 millisecond', beats = beats + 1 \
             WHERE incarnation = $1 AND state IN ('joining', 'up', 'draining') RETURNING beats) \
         SELECT joins, rewound, (SELECT beats FROM held), \
             (SELECT beats FROM nodes WHERE incarnation = $1) \
         FROM cluster_meta WHERE id = 1";
    let row = query(statement)
        .bind(incarnation)
        .bind(f64::from(lease_ms))
        .fetch_optional(connection)
        .await?;
    let row = decode::maybe(row.as_ref(), |columns| {
        Ok((columns.take()?, columns.take()?, columns.take()?, columns.take()?))
    })?;
    let (joins, rewound, beats, before): (i64, bool, Option<i64>, Option<i64>) =
        row.unwrap_or_default();
    // Of a boot that was declared dead or replaced the count says nothing any more.
    let is_short = beats.is_some() && before.is_some_and(|before| before < expected.1);
    if rewound || joins < expected.0 || is_short { Err(Failure::Rewound) } else { Ok(beats) }
}

/// Marks the database as one that has lost commits, if it is: it may be another by now.
pub(super) async fn mark_rewound(
    connection: &mut Conn,
    incarnation: Uuid,
    expected: (i64, i64),
) -> Result<(), Failure> {
    let statement = "UPDATE cluster_meta SET rewound = true WHERE id = 1 AND (joins < $2 OR EXISTS \
             (SELECT 1 FROM nodes WHERE incarnation = $1 AND beats < $3 \
              AND state IN ('joining', 'up', 'draining')))";
    query(statement)
        .bind(incarnation)
        .bind(expected.0)
        .bind(expected.1)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the mark away, whatever boots of before know; whether it was there. They are dead, and the count of
/// joins is above anything that one of them may have seen: one that sleeps must not mark it again.
pub(super) async fn accept_rewound(connection: &mut Conn) -> Result<bool, Failure> {
    let statement = "UPDATE cluster_meta SET rewound = false, joins = joins + 1000000 \
                     WHERE id = 1 AND rewound";
    let accepted = query(statement).execute(&mut *connection).await?.rows_affected() == 1;
    if accepted {
        query("UPDATE nodes SET state = 'dead' WHERE state IN ('joining', 'up', 'draining')")
            .execute(connection)
            .await?;
    }
    Ok(accepted)
}

/// Ends the lease and gives the shards up, after the writes under way on them.
pub(super) async fn leave(connection: &mut Conn, incarnation: Uuid) -> Result<(), Failure> {
    let statement = "UPDATE nodes SET state = 'left', lease_until = clock_timestamp() \
                     WHERE incarnation = $1 AND state IN ('joining', 'up', 'draining')";
    query(statement).bind(incarnation).execute(&mut *connection).await?;
    let release = "WITH mine AS MATERIALIZED (SELECT shard_id FROM shards \
                       WHERE owner_incarnation = $1 ORDER BY shard_id FOR UPDATE) \
                   UPDATE shards s SET owner_incarnation = NULL FROM mine \
                   WHERE s.shard_id = mine.shard_id AND s.owner_incarnation = $1";
    query(release).bind(incarnation).execute(connection).await?;
    Ok(())
}

/// Other nodes whose lease still runs.
pub(super) async fn others_alive(
    connection: &mut Conn,
    incarnation: Uuid,
) -> Result<Vec<NodeRow>, Failure> {
    let statement = "SELECT id, incarnation, http, cluster, seal FROM nodes \
                     WHERE incarnation <> $1 AND state IN ('joining', 'up', 'draining') \
                     AND lease_until > clock_timestamp() ORDER BY id";
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

/// Marks nodes whose lease has run out as dead. A renewal that holds the row is waited for, and the
/// lease looked at again.
pub(super) async fn bury_expired(connection: &mut Conn) -> Result<(), Failure> {
    let statement = "WITH expired AS MATERIALIZED (SELECT id FROM nodes \
                         WHERE state IN ('joining', 'up', 'draining') \
                         AND lease_until <= clock_timestamp() ORDER BY id FOR UPDATE) \
                     UPDATE nodes n SET state = 'dead' FROM expired WHERE n.id = expired.id \
                     AND n.state IN ('joining', 'up', 'draining') \
                     AND n.lease_until <= clock_timestamp()";
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
         AND state IN ('joining', 'up', 'draining') AND lease_until > clock_timestamp())",
    )
    .bind(incarnation)
    .fetch_one(&mut *connection)
    .await?;
    if !alive {
        return Err(Failure::Fenced(wanted.to_vec()));
    }
    let numbers: Vec<i32> = wanted.iter().map(|shard| number::shard(*shard)).collect();
    let locked: Vec<i32> = query_scalar(LOCK_CLAIMABLE)
        .bind(numbers)
        .bind(incarnation)
        .fetch_all(&mut *connection)
        .await?;
    let taken = query(
        "UPDATE shards SET epoch = epoch + 1, owner_incarnation = $2 WHERE shard_id = ANY($1) \
         RETURNING shard_id, epoch",
    )
    .bind(&locked)
    .bind(incarnation)
    .fetch_all(&mut *connection)
    .await?;
    let epochs: HashMap<i32, i64> =
        decode::all(&taken, |columns| Ok((columns.take()?, columns.take()?)))?
            .into_iter()
            .collect();
    // A statement of its own, after the locks: it sees the last writes that they waited for.
    let cursors = query(CURSORS).bind(&locked).fetch_all(connection).await?;
    let mut states = decode::all(&cursors, |columns| {
        let shard: i32 = columns.take()?;
        let epoch = epochs.get(&shard).copied().ok_or_else(|| {
            Failure::Damaged(format!("shard {shard} was locked but not there to be taken"))
        })?;
        state(shard, epoch, Some(incarnation), columns)
    })?;
    states.sort_unstable_by_key(|state| state.shard);
    Ok(states)
}

/// Every node.
pub(super) async fn members(connection: &mut Conn) -> Result<Vec<MemberRow>, Failure> {
    let statement = "SELECT id, incarnation, http, cluster, seal, state, \
         CAST(EXTRACT(EPOCH FROM lease_until - clock_timestamp()) * 1000 AS bigint) \
         FROM nodes ORDER BY id";
    let rows = query(statement).fetch_all(connection).await?;
    decode::all(&rows, member)
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

/// Gives shards to another boot. The rows are locked in their order before any is changed.
pub(super) async fn hand_over(
    connection: &mut Conn,
    from: Uuid,
    to: Uuid,
    shards: &[HandOver],
) -> Result<Vec<(ShardId, Epoch)>, Failure> {
    // Locked, so that an heir that leaves meanwhile gives up what it was given just before.
    let heir = query(
        "SELECT 1 FROM nodes WHERE incarnation = $1 AND state = 'up' \
         AND lease_until > clock_timestamp() FOR SHARE",
    )
    .bind(to)
    .fetch_optional(&mut *connection)
    .await?;
    if heir.is_none() {
        return Ok(Vec::new());
    }
    let numbers: Vec<i32> = shards.iter().map(|given| number::shard(given.shard)).collect();
    let epochs = shards.iter().map(|given| number::epoch(given.epoch)).collect::<Vec<_>>();
    let counted = shards.iter().map(|given| number::seq(given.counted)).collect::<Vec<_>>();
    query("SELECT 1 FROM shards WHERE shard_id = ANY($1) ORDER BY shard_id FOR UPDATE")
        .bind(&numbers)
        .execute(&mut *connection)
        .await?;
    let given = query(
        "UPDATE shards s SET owner_incarnation = $2, epoch = s.epoch + 1 \
         FROM UNNEST($3::integer[], $4::bigint[]) AS w (shard_id, epoch) \
         WHERE s.shard_id = w.shard_id AND s.epoch = w.epoch AND s.owner_incarnation = $1 \
         RETURNING s.shard_id, s.epoch",
    )
    .bind(from)
    .bind(to)
    .bind(&numbers)
    .bind(epochs)
    .fetch_all(&mut *connection)
    .await?;
    let given = decode::all(&given, |columns| {
        Ok((number::shard_id(columns.take()?)?, Epoch(number::unsigned(columns.take()?)?)))
    })?;
    let taken: Vec<i32> = given.iter().map(|(shard, _)| number::shard(*shard)).collect();
    query(
        "UPDATE shard_progress p SET counted = GREATEST(p.counted, w.counted) \
         FROM UNNEST($1::integer[], $2::bigint[]) AS w (shard_id, counted) \
         WHERE p.shard_id = w.shard_id AND p.shard_id = ANY($3)",
    )
    .bind(numbers)
    .bind(counted)
    .bind(taken)
    .execute(connection)
    .await?;
    Ok(given)
}

/// All shards, from the two small tables alone.
pub(super) async fn shards(connection: &mut Conn) -> Result<Vec<ShardState>, Failure> {
    let statement = "SELECT s.shard_id, s.epoch, s.owner_incarnation, p.counted, p.rolled, \
                     GREATEST(p.counted, p.rolled) \
                     FROM shards s JOIN shard_progress p USING (shard_id) ORDER BY s.shard_id";
    let rows = query(statement).fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        let (shard, epoch, owner) = (columns.take()?, columns.take()?, columns.take()?);
        state(shard, epoch, owner, columns)
    })
}

fn member(columns: &mut decode::Columns<'_>) -> Result<MemberRow, Failure> {
    let node = NodeRow {
        id: columns.take()?,
        incarnation: columns.take()?,
        http: columns.take()?,
        cluster: columns.take()?,
        seal: columns.take()?,
    };
    Ok(MemberRow { node, state: columns.take()?, lease_left_ms: columns.take()? })
}

fn state(
    shard: i32,
    epoch: i64,
    owner: Option<Uuid>,
    columns: &mut decode::Columns<'_>,
) -> Result<ShardState, Failure> {
    Ok(ShardState {
        shard: number::shard_id(shard)?,
        epoch: Epoch(number::unsigned(epoch)?),
        owner,
        counted: Seq(number::unsigned(columns.take()?)?),
        rolled: Seq(number::unsigned(columns.take()?)?),
        last: Seq(number::unsigned(columns.take()?)?),
    })
}
