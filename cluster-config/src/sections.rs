//! The sections of a configuration: what can be tuned, with each key's default and range.
//!
//! Role: the parts of [`Config`](crate::Config) that most installations leave alone. A room is
//! handed its section and nothing else. The upper end of a range is a hard limit of
//! [`crate::limits`] where there is one; how settings must fit each other is in `checks.rs`.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits;
use crate::reader::Reader;

/// The HTTP edge: sizes and time-outs of one request.
#[derive(Clone, Debug)]
pub struct Server {
    /// From the end of the last answer (or the connection's start) to the end of the next headers,
    /// so also how long a connection may stay idle. Shorter than a gateway keeps its own, and its
    /// next request may meet a closing connection; longer, and slow clients hold more of them.
    pub header_read_timeout: Duration,
    /// From the end of the headers to the end of the body.
    pub body_read_timeout: Duration,
    /// From the end of the headers to the answer.
    pub request_timeout: Duration,
    /// How long SIGTERM waits for requests and the last checkpoint.
    pub drain_timeout: Duration,
    /// Bytes of a body, before and after decompression.
    pub body_bytes_max: usize,
    /// Connections open at once.
    pub connections_max: usize,
}

impl Server {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let bytes = limits::BODY_BYTES_MAX;
        let connections = limits::CONNECTIONS_MAX;
        Self {
            header_read_timeout: r.duration("server.header_read_timeout", s(60), ms(100)..=s(600)),
            body_read_timeout: r.duration("server.body_read_timeout", s(15), ms(100)..=minutes(10)),
            request_timeout: r.duration("server.request_timeout", s(20), ms(100)..=minutes(10)),
            drain_timeout: r.duration("server.drain_timeout", s(25), s(1)..=minutes(30)),
            body_bytes_max: r.bytes("server.body_bytes_max", bytes, 1024..=bytes),
            connections_max: r.count("server.connections_max", connections, 1..=connections),
        }
    }
}

/// What is accepted as an event or a batch.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Events older than this are refused, and duplicates within it recognised.
    pub accept_window: Duration,
    /// Events in one request.
    pub batch_events_max: usize,
    /// Checks in one request.
    pub batch_checks_max: usize,
}

impl Ingest {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let (window, window_max) = (limits::ACCEPT_WINDOW_DEFAULT, limits::ACCEPT_WINDOW_MAX);
        let (events, checks) = (limits::BATCH_EVENTS_MAX, limits::BATCH_CHECKS_MAX);
        Self {
            accept_window: r.duration("ingest.accept_window", window, minutes(60)..=window_max),
            batch_events_max: r.count("ingest.batch_events_max", events, 1..=events),
            batch_checks_max: r.count("ingest.batch_checks_max", checks, 1..=checks),
        }
    }
}

/// The database connections.
#[derive(Clone, Debug)]
pub struct Store {
    /// Connections of this node.
    pub pool_size: usize,
    /// After this the query's connection is dropped and its outcome unknown.
    pub query_timeout: Duration,
    /// How long a task waits for a connection.
    pub acquire_timeout: Duration,
}

impl Store {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        Self {
            pool_size: r.count("store.pool_size", 16, 2..=limits::POOL_CONNECTIONS_MAX),
            query_timeout: r.duration("store.query_timeout", s(2), ms(50)..=s(60)),
            acquire_timeout: r.duration("store.acquire_timeout", s(2), ms(50)..=s(60)),
        }
    }
}

/// Group commit of events.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// Writers; each shard is pinned to one.
    pub lanes: usize,
    /// Rows of one transaction.
    pub append_rows_max: usize,
    /// Rows waiting before one lane.
    pub queue_rows_max: usize,
}

impl Recorder {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let (rows, queue) = (limits::APPEND_ROWS_MAX, limits::RECORDER_QUEUE_ROWS_MAX);
        Self {
            lanes: r.count("recorder.lanes", 4, 1..=limits::RECORDER_LANES_MAX),
            append_rows_max: r.count("recorder.append_rows_max", rows, 1..=rows),
            queue_rows_max: r.count("recorder.queue_rows_max", queue, 1..=queue),
        }
    }
}

/// Checkpoints of counters.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Time from one round to the next.
    pub interval: Duration,
    /// Rows of one statement.
    pub chunk_rows_max: usize,
}

impl Checkpoint {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let rows = limits::CHECKPOINT_CHUNK_ROWS_MAX;
        Self {
            interval: r.duration("checkpoint.interval", s(1), ms(50)..=s(60)),
            chunk_rows_max: r.count("checkpoint.chunk_rows_max", rows, 1..=rows),
        }
    }
}

/// Subscriptions in memory.
#[derive(Clone, Debug)]
pub struct Actors {
    /// A subscription idle for this long leaves memory.
    pub passivate_after: Duration,
    /// Subscriptions in memory at once; beyond it the longest idle leaves.
    pub resident_max: usize,
    /// Messages waiting before one subscription.
    pub mailbox_messages_max: usize,
}

impl Actors {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let (resident, mailbox) = (limits::RESIDENT_DEFAULT, limits::MAILBOX_MESSAGES_MAX);
        Self {
            passivate_after: r.duration("actors.passivate_after", minutes(10), s(1)..=days(7)),
            resident_max: r.count("actors.resident_max", resident, 1..=limits::RESIDENT_MAX),
            mailbox_messages_max: r.count("actors.mailbox_messages_max", mailbox, 1..=mailbox),
        }
    }
}

/// Periods and charges.
#[derive(Clone, Debug)]
pub struct Billing {
    /// How long after its end a period still counts late events; then it is closed.
    pub grace: Duration,
    /// Time from one overage run to the next, by whichever node is first.
    pub overage_every: Duration,
    /// The same for runs that close periods.
    pub rollover_every: Duration,
}

impl Billing {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let run = s(1)..=days(7);
        Self {
            grace: r.duration("billing.grace", days(1), Duration::ZERO..=days(35)),
            overage_every: r.duration("billing.overage_every", days(1), run.clone()),
            rollover_every: r.duration("billing.rollover_every", minutes(60), run),
        }
    }
}

/// Shards, the lease of the node that serves them, and how nodes trust each other.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Shards; counts only when the cluster is born, and must match ever after.
    pub shard_count: NonZeroU16,
    /// How long a node's lease lasts by the database's clock.
    pub lease: Duration,
    /// Time from one renewal to the next.
    pub lease_renew: Duration,
    /// PEM file with the certificates of the authority that signs every node's.
    pub tls_authority: Option<PathBuf>,
    /// PEM file with this node's chain, its own certificate first.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with this node's private key.
    pub tls_key: Option<PathBuf>,
    /// Lets nodes on other machines talk in the clear.
    pub insecure_plaintext: bool,
}

impl Cluster {
    pub(crate) fn read(r: &mut Reader<'_>) -> Self {
        let shards = limits::SHARD_COUNT_DEFAULT.to_string();
        let shards_expected = format!("a whole number from 1 to {}", limits::SHARD_COUNT_MAX);
        let shard_count = |text: &str| {
            let number = crate::value::whole_number(text)?;
            u16::try_from(number).ok().and_then(NonZeroU16::new)
        };
        Self {
            shard_count: r.setting("cluster.shard_count", &shards, &shards_expected, shard_count),
            lease: r.duration("cluster.lease", s(5), ms(500)..=minutes(5)),
            lease_renew: r.duration("cluster.lease_renew", s(1), ms(50)..=minutes(1)),
            tls_authority: file(r, "cluster.tls_authority"),
            tls_certificate: file(r, "cluster.tls_certificate"),
            tls_key: file(r, "cluster.tls_key"),
            insecure_plaintext: r.setting(
                "cluster.insecure_plaintext",
                "false",
                "true or false",
                |text| text.parse().ok(),
            ),
        }
    }
}

pub(crate) fn file(r: &mut Reader<'_>, key: &'static str) -> Option<PathBuf> {
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    r.optional(key, "the path of a PEM file", path)
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

const fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}
