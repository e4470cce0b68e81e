//! The bare client that Weir's ingest is held against: the same rows into the same tables and indexes by
//! the same driver, and nothing else: no HTTP, no JSON, no fence, no search for duplicates, no counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use sqlx::{Connection as _, PgConnection, query};
use uuid::Uuid;

use super::batches::{self, BATCH, Columns};
use super::fixture::API_ID;

const IDENTITIES: &str = "\
    INSERT INTO usage_event_ids (subscription_id, event_id, kind, recorded_at, event_time, seq) \
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[])";

const RECORDS: &str = "\
    INSERT INTO usage_records (subscription_id, shard_id, seq, event_id, kind, event_time, recorded_at, \
        units, quantities, charged, outcome, reservation_id, key_id, api_id, api_path, method, \
        status_code, success, response_time_us, request_size, response_size, user_agent, ip_address, \
        country) \
    SELECT * FROM UNNEST($1::uuid[], $2::integer[], $3::bigint[], $4::text[], $5::smallint[], \
        $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::boolean[], $11::smallint[], \
        $12::uuid[], $13::uuid[], $14::text[], $15::text[], $16::text[], $17::smallint[], \
        $18::boolean[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], \
        $24::text[])";

/// Inserts batches over `connections` until they or the time are used up. Answers how many, in which time.
pub(super) async fn insert(
    url: &str,
    connections: usize,
    all: Vec<Columns>,
    duration: Duration,
) -> Result<(usize, Duration)> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(PgConnection::connect(url).await.context("connect the bare client")?);
    }
    let (all, next) = (Arc::new(all), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let tasks = open.into_iter().map(|mut connection| {
        let (all, next) = (Arc::clone(&all), Arc::clone(&next));
        tokio::spawn(async move {
            let mut done = 0;
            while started.elapsed() < duration {
                let Some(batch) = all.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                insert_batch(&mut connection, batch).await?;
                done += 1;
            }
            Ok((done, connection))
        })
    });
    let mut done = 0;
    let ended: Vec<Result<(usize, PgConnection)>> = try_join_all(tasks).await?;
    let took = started.elapsed();
    for task in ended {
        let (batches, connection) = task?;
        done += batches;
        connection.close().await.context("disconnect the bare client")?;
    }
    Ok((done, took))
}

async fn insert_batch(connection: &mut PgConnection, batch: &Columns) -> Result<()> {
    let mut change = connection.begin().await?;
    let (kinds, times) = (vec![0_i16; BATCH], vec![batch.at; BATCH]);
    query(IDENTITIES)
        .bind(&batch.subscriptions)
        .bind(&batch.event_ids)
        .bind(&kinds)
        .bind(&times)
        .bind(&times)
        .bind(&batch.positions)
        .execute(&mut *change)
        .await
        .context("insert identities")?;
    query(RECORDS)
        .bind(&batch.subscriptions)
        .bind(&batch.shards)
        .bind(&batch.positions)
        .bind(&batch.event_ids)
        .bind(&kinds)
        .bind(&times)
        .bind(&times)
        .bind(vec![1_i64; BATCH])
        .bind(vec![None::<String>; BATCH])
        .bind(vec![true; BATCH])
        .bind(&kinds)
        .bind(vec![None::<Uuid>; BATCH])
        .bind(&batch.keys)
        .bind(vec![API_ID; BATCH])
        .bind(&batch.paths)
        .bind(vec![batches::METHOD; BATCH])
        .bind(vec![batches::STATUS; BATCH])
        .bind(vec![true; BATCH])
        .bind(vec![batches::RESPONSE_MICROS; BATCH])
        .bind(vec![batches::REQUEST_SIZE; BATCH])
        .bind(vec![batches::RESPONSE_SIZE; BATCH])
        .bind(vec![batches::USER_AGENT; BATCH])
        .bind(vec![batches::IP_ADDRESS; BATCH])
        .bind(vec![batches::COUNTRY; BATCH])
        .execute(&mut *change)
        .await
        .context("insert records")?;
    change.commit().await.context("commit")
}
