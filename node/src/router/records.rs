//! Rows to be made durable, each by the owner of its shard.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use uuid::Uuid;
use weir_core::units::ShardId;
use weir_store::rows::LedgerRow;

use super::Router;
use crate::clock::Clock;
use crate::cluster::{NoReply, Peers};
use crate::codec::peers::{Ask, Reply, record_chunks};
use crate::outcome::{RecordError, Recorded};
use crate::ownership::MOVE_PATIENCE;

/// How long a peer may take to commit. More: a sender waits for a node that has stopped. Less: it sends
/// again what is being committed.
const PEER_COMMITS_WITHIN: Duration = Duration::from_secs(10);
/// Pause before rows whose owner was not found are tried again.
const PAUSE: Duration = Duration::from_millis(10);

type Numbered = (usize, LedgerRow);

/// What became of the rows of one owner.
enum Part {
    Recorded(Vec<usize>, Vec<Recorded>),
    /// Not taken by anybody: to be tried again, perhaps elsewhere.
    Left(Vec<Numbered>),
    Failed(RecordError),
}

impl Router {
    /// Makes rows durable and counts them. Answers per row, in order. On an error some of them may be
    /// durable all the same: a retry with the same ids is safe.
    pub async fn record(&self, rows: Vec<LedgerRow>) -> Result<Vec<Recorded>, RecordError> {
        let Some(peers) = &self.peers else { return self.recorder.record(rows).await };
        let mut outcomes = vec![Recorded::Duplicate; rows.len()];
        let mut left: Vec<Numbered> = rows.into_iter().enumerate().collect();
        let stopwatch = Clock::stopwatch();
        loop {
            let mut by_owner: BTreeMap<Option<Uuid>, Vec<Numbered>> = BTreeMap::new();
            let mut nobodys = Vec::new();
            for row in left {
                match self.recorder_of(peers, row.1.shard) {
                    Ok(owner) => by_owner.entry(owner).or_default().push(row),
                    Err(NotNow) => nobodys.push(row),
                }
            }
            let writing = by_owner.into_iter().map(|(owner, rows)| async move {
                match owner {
                    None => vec![self.record_here(rows).await],
                    Some(boot) => record_there(peers, boot, rows).await,
                }
            });
            left = nobodys;
            let mut failure = None;
            for part in join_all(writing).await.into_iter().flatten() {
                match part {
                    Part::Recorded(places, recorded) => {
                        for (place, outcome) in places.into_iter().zip(recorded) {
                            outcomes[place] = outcome;
                        }
                    }
                    Part::Left(rows) => left.extend(rows),
                    Part::Failed(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            if left.is_empty() {
                return Ok(outcomes);
            }
            if stopwatch.elapsed() > MOVE_PATIENCE {
                return Err(RecordError::NotHere);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Who writes the rows of a shard; `None` = this node.
    fn recorder_of(&self, peers: &Peers, shard: ShardId) -> Result<Option<Uuid>, NotNow> {
        if self.ownership.serves(shard) {
            return Ok(None);
        }
        peers.owner(shard).filter(|boot| *boot != peers.me()).map(Some).ok_or(NotNow)
    }

    async fn record_here(&self, numbered: Vec<Numbered>) -> Part {
        let rows = numbered.iter().map(|(_, row)| row.clone()).collect();
        match self.recorder.record(rows).await {
            Ok(recorded) => Part::Recorded(places(&numbered), recorded),
            Err(RecordError::NotHere) => Part::Left(numbered),
            Err(error) => Part::Failed(error),
        }
    }
}

/// The shard is on its way.
struct NotNow;

async fn record_there(peers: &Peers, boot: Uuid, numbered: Vec<Numbered>) -> Vec<Part> {
    let places = places(&numbered);
    let chunks = record_chunks(numbered.into_iter().map(|(_, row)| row).collect());
    let mut places = places.into_iter();
    let asking = chunks.into_iter().map(|rows| {
        let numbers: Vec<usize> = places.by_ref().take(rows.len()).collect();
        async move {
            let ask = Ask::Record { rows };
            let reply = peers.ask(boot, &ask, PEER_COMMITS_WITHIN).await;
            let Ask::Record { rows } = ask else { return Part::Failed(RecordError::Away) };
            match reply {
                Ok(Reply::Recorded(recorded)) if recorded.len() == rows.len() => {
                    Part::Recorded(numbers, recorded)
                }
                Ok(Reply::NotHere(_)) | Err(NoReply::NotSent) => {
                    Part::Left(numbers.into_iter().zip(rows).collect())
                }
                Ok(Reply::NotRecorded(error)) => Part::Failed(error),
                // It may have been committed: only the sender's retry, with the same ids, can tell.
                Ok(_) | Err(NoReply::Unknown) => Part::Failed(RecordError::Away),
            }
        }
    });
    join_all(asking).await
}

fn places(numbered: &[Numbered]) -> Vec<usize> {
    numbered.iter().map(|(place, _)| *place).collect()
}
