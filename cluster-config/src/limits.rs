//! Every hard limit around the core, each with what breaks if it were larger or smaller.
//!
//! Role: one place to look when something is refused for its size, and one place to change it.
//! A limit that an operator may lower is a setting in [`crate::config`] whose upper bound is the
//! constant here; one that nothing reads is deleted, since it proves nothing. What the core itself
//! refuses (quotas of a plan, named reservations, the largest count) stands in the core, which may
//! import nothing of ours.
//!
//! The checks at the end of the file hold the relations between limits at compile time. Names
//! carry their unit: `_BYTES`, `_CHARS`, `_ROWS`; a plain number counts entries.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const DAY_HOURS: u64 = 24;

// ---------------------------------------------------------------------------------------------
// One request
// ---------------------------------------------------------------------------------------------

/// Bytes of one request body, before and after decompression alike.
/// Larger: a few hundred concurrent uploads, or one gzip bomb, exhaust the node's memory.
/// Smaller: a full batch of events with long paths and user agents no longer fits.
pub const BODY_BYTES_MAX: usize = 8 * MIB;

/// Bytes of one request's line and headers together.
/// Larger: idle connections pin that much memory each. Smaller: a path at its limit inside
/// `X-Forwarded-Uri`, beside ordinary cookies, is refused.
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 * KIB;

/// Open HTTP connections of one node.
/// Larger: descriptors and buffers (~40 KB each) run out before the listener says no.
/// Smaller: a fleet of gateways with ordinary pools cannot all connect.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Events in one request.
/// Larger: one request occupies a recorder lane for several transactions and starves the others.
/// Smaller: a gateway that kept events through an outage takes too many round trips to drain.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// Checks in one request.
/// Larger: the slowest item delays too many neighbours past their deadline.
/// Smaller: batch callers fall back to one request a check.
pub const BATCH_CHECKS_MAX: usize = 1_000;

/// Rows on a page of a list when the caller does not say.
/// Larger: a casual look costs a large read. Smaller: scripts page needlessly.
pub const PAGE_LIMIT_DEFAULT: usize = 100;

/// Rows on a page of a list at most.
/// Larger: a page is no longer answered inside the request time-out, and its rows are held in
/// memory at once. Smaller: walking the audit trail of a busy day takes thousands of requests.
pub const PAGE_LIMIT_MAX: usize = 1_000;

/// Period bounds in one preview, and empty or full buckets in one trend.
/// Larger: a second-granular question over a year builds millions of buckets in memory.
/// Smaller: a week by the minute (10,080) cannot be drawn.
pub const BUCKETS_MAX: usize = 11_000;

// ---------------------------------------------------------------------------------------------
// One field
// ---------------------------------------------------------------------------------------------

/// Characters of an event id (at most four bytes each in UTF-8).
/// Larger: the dedupe index, kept for the whole accept window, outgrows memory.
/// Smaller: ids made of a gateway name, a UUID and a counter are refused. The contract says 128.
pub const EVENT_ID_CHARS_MAX: usize = 128;

/// Bytes of an `Idempotency-Key` or `requestId`.
/// Larger: the per-subscription ring of recent keys grows with it. Smaller: UUIDs with a prefix
/// are refused.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Bytes of a subscription key or a bearer token as sent by a client.
/// Larger: hashing attacker-sized input on the hot path. Smaller: signed keys brought along from
/// another system do not fit.
pub const KEY_BYTES_MAX: usize = 512;

/// Bytes of an API path kept with an event or matched by a plan; longer ones are cut when
/// recorded and refused in a plan.
/// Larger: ledger rows are dominated by attacker-chosen text. Smaller: real paths lose their end.
pub const PATH_BYTES_MAX: usize = 2_048;

/// Bytes of a user agent kept with an event; longer ones are cut.
/// Larger: as for the path. Smaller: real browser strings (200 to 300 bytes) are cut.
pub const USER_AGENT_BYTES_MAX: usize = 512;

/// Bytes of an HTTP method.
/// Larger: room for text that is no method. Smaller: the longest registered one,
/// `UPDATEREDIRECTREF` (RFC 4437), is refused.
pub const METHOD_BYTES_MAX: usize = 17;

/// Characters of a name a person gives: plan, quota, rate limit, meter, token, tenant, API id.
/// Larger: names travel in every decision, header and metric. Smaller: descriptive names do
/// not fit.
pub const NAME_CHARS_MAX: usize = 128;

/// Bytes of an e-mail address (RFC 5321 §4.5.3.1.3 allows a path of 256 with its brackets).
/// Larger: not an address. Smaller: valid ones are refused.
pub const EMAIL_BYTES_MAX: usize = 254;

/// Bytes of a webhook's URL.
/// Larger: outbox rows grow. Smaller: URLs with a signed token in the query are refused.
pub const URL_BYTES_MAX: usize = 2_048;

/// Characters of the reason given with an adjustment or a reset.
/// Larger: the audit log becomes a blob store. Smaller: a ticket reference with a sentence is cut.
pub const REASON_CHARS_MAX: usize = 1_000;

/// Bytes of a subscription's `metadata` as JSON.
/// Larger: it is loaded with the actor, so resident memory grows past its budget.
/// Smaller: a handful of references to other systems does not fit.
pub const METADATA_BYTES_MAX: usize = 4 * KIB;

/// Meters named in one event's `quantities` or one check's `cost.*`.
/// Larger: each is a ledger column's worth of JSON and a loop on the hot path.
/// Smaller: a plan with the most quotas could not be fed by one event.
pub const QUANTITIES_MAX: usize = 32;

// ---------------------------------------------------------------------------------------------
// One plan
// ---------------------------------------------------------------------------------------------

/// Tiers of one price model.
/// Larger: rating a period is no longer trivial work. Smaller: published price lists do not fit.
pub const TIERS_MAX: usize = 100;

// ---------------------------------------------------------------------------------------------
// Time
// ---------------------------------------------------------------------------------------------

/// How far ahead of the node's clock an event may be stamped. Fixed: gateways and nodes must
/// agree on it. Larger: a wrong gateway clock books usage into the next period.
/// Smaller: ordinary clock drift makes gateways lose events.
pub const FUTURE_SKEW: Duration = Duration::from_mins(5);

/// Default age up to which an event is accepted, and recognised as a duplicate.
/// Larger: the dedupe index keeps every id longer. Smaller: a gateway cut off for a month, or
/// one monthly period plus its grace, loses events.
pub const ACCEPT_WINDOW_DEFAULT: Duration = Duration::from_hours(35 * DAY_HOURS);

/// Largest accept window an operator may set.
/// Larger: years of event ids stay in the dedupe index for nothing. Smaller: a log of some years
/// ago cannot be loaded with its own times, as when a history is brought in or replayed.
pub const ACCEPT_WINDOW_MAX: Duration = Duration::from_hours(20 * 366 * DAY_HOURS);

/// Default life of an unsettled hold.
/// Larger: a gateway that dies keeps its clients' quota blocked longer. Smaller: slow requests
/// are no longer covered by their hold when their event arrives.
pub const HOLD_TTL_DEFAULT: Duration = Duration::from_mins(1);

// ---------------------------------------------------------------------------------------------
// One subscription in memory
// ---------------------------------------------------------------------------------------------

/// Messages waiting in one subscription's mailbox, and checks waiting for one subscription's commit.
/// Larger: the last in line waits longer than its caller does, so the work is wasted.
/// Smaller: a burst at a cold or nearly used-up key is refused although one commit, some
/// milliseconds away, would serve all of it (at 2 µs a message this many take 8 ms).
pub const MAILBOX_MESSAGES_MAX: usize = 4_096;

/// Subscriptions of one shard that may be loading from the store at once.
/// Larger: a cold start floods the store's pool and every load times out together.
/// Smaller: a take-over warms up too slowly.
pub const ACTIVATIONS_PER_SHARD_MAX: usize = 64;

/// Resident subscriptions of one node at most.
/// Larger: at 10 to 14 KB each this many take 56 GB. Smaller: big machines stay half empty.
pub const RESIDENT_MAX: usize = 4_000_000;

/// Resident subscriptions of one node when the operator does not say.
/// Larger: 2 to 3 GB and more, which a small machine does not have. Smaller: an ordinary
/// installation passivates and loads all the time.
pub const RESIDENT_DEFAULT: usize = 200_000;

/// Distinct endpoints one subscription's analytics keep in one minute; the rest is counted
/// under one name for "other".
/// Larger: paths with ids in them fill memory and table. Smaller: real APIs lose endpoints.
pub const ENDPOINTS_PER_MINUTE_MAX: usize = 200;

/// Distinct countries, and distinct status codes, of one analytics bucket.
/// Larger: made-up values fill the bucket. Smaller: ISO 3166 has 249 and HTTP ~60 in use.
pub const BUCKET_LABELS_MAX: usize = 256;

// ---------------------------------------------------------------------------------------------
// One node's caches and queues
// ---------------------------------------------------------------------------------------------

/// Known subscription keys in the router's cache.
/// Larger: at about 150 bytes each, memory that resident subscriptions need. Smaller: a full
/// node asks the store for keys of subscriptions it has in memory.
pub const KEY_CACHE_ENTRIES_MAX: usize = 500_000;

/// Unknown keys remembered as unknown.
/// Larger: a scan with made-up keys evicts useful memory. Smaller: the same scan reaches the
/// store with every request.
pub const NEGATIVE_KEY_CACHE_ENTRIES_MAX: usize = 50_000;

/// How long an unknown key is remembered as unknown.
/// Larger: a subscription made on another node is refused longer. Smaller: a scan costs more.
pub const NEGATIVE_KEY_CACHE_TTL: Duration = Duration::from_secs(5);

/// How long a connection may have something to send that the other side does not take.
/// Larger: clients that never read fill the connection limit. Smaller: a phone in a tunnel is cut off.
pub const SOCKET_STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// Rows of one ledger transaction.
/// Larger: the first event of a group waits for the last, and locks are held longer.
/// Smaller: the fixed cost of fence and commit is paid more often.
pub const APPEND_ROWS_MAX: usize = 1_000;

/// Rows waiting before one recorder lane; more are refused with 503, which gateways retry.
/// Larger: memory, and waits beyond the request time-out. Smaller: one full batch plus the
/// ordinary stream beside it is refused.
pub const RECORDER_QUEUE_ROWS_MAX: usize = 20_000;

/// Recorder lanes (writers) of one node.
/// Larger: each takes a connection of the pool for long spells. Smaller: a big machine's store
/// is not kept busy.
pub const RECORDER_LANES_MAX: usize = 32;

/// Rows of one checkpoint statement.
/// Larger: a lost fence throws away more work and the statement nears its time-out.
/// Smaller: fixed costs again.
pub const CHECKPOINT_CHUNK_ROWS_MAX: usize = 2_000;

/// Database connections of one node.
/// Larger: a few nodes exhaust a server's default `max_connections` of 100 several times over.
/// Smaller: lanes, checkpoints and reads of a large node wait for each other.
pub const POOL_CONNECTIONS_MAX: usize = 256;

// ---------------------------------------------------------------------------------------------
// The cluster
// ---------------------------------------------------------------------------------------------

/// Shards of a cluster, fixed at its birth.
/// Larger: does not fit the two bytes it has on the wire. Smaller: nothing breaks, but a large
/// cluster could not be spread evenly.
pub const SHARD_COUNT_MAX: u16 = u16::MAX;

/// Shards of a cluster when its first node does not say.
/// Larger: more rows to lock in a transaction that spans shards (256 instead of one costs about
/// 10 %). Smaller: at ten nodes the load of two differs by more than a tenth.
pub const SHARD_COUNT_DEFAULT: u16 = 1_024;

/// Messages to one peer that may be under way: requests without an answer, and messages it has not
/// dealt with.
/// Larger: a peer that stops holds as many callers, and works on as many requests when it goes on.
/// Smaller: at 100,000 requests/s and 10 ms of a slow peer the window is full, and checks fail that
/// would have been answered.
pub const PEER_WINDOW_MESSAGES: usize = 4_096;

/// Bytes of messages to one peer that may be under way; the same for answers it has not taken.
/// Larger: memory that each peer that stops may hold, in both. Smaller: the window of messages
/// cannot be used by checks (200 bytes), or one large body blocks all others.
pub const PEER_WINDOW_BYTES: usize = 4 * MIB;

/// Bytes of one frame between nodes, refused by whoever gets a larger one.
/// Larger: memory that a peer gone wrong can demand, and checks that wait behind it.
/// Smaller: a page of another node's read does not fit.
pub const PEER_FRAME_BYTES_MAX: usize = MIB;

/// Bytes of one body; what is larger is not sent. The rest of the frame is its head.
/// Larger: the frame is refused. Smaller: as for the frame.
pub const PEER_BODY_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX - KIB;

/// Messages gathered into one frame.
/// Larger: the first is decoded, and answered, with the last. Smaller: the carrier's cost of a frame
/// (about 6 µs) is paid more often.
pub const PEER_BATCH_MESSAGES_MAX: usize = 64;

/// Bytes gathered into one frame of several messages.
/// Larger: a check waits longer behind bulk. Smaller: as for the messages.
pub const PEER_BATCH_BYTES_MAX: usize = 64 * KIB;

/// Connections on the cluster's port that have not proved the secret yet.
/// Larger: whoever can reach the port holds that many descriptors, for `PEER_HANDSHAKE_TIMEOUT` each.
/// Smaller: a cluster that starts together waits for its own handshakes.
pub const PEER_HANDSHAKES_MAX: usize = 64;

/// Time to connect, to agree on TLS and to prove the secret, and again to join the carrier.
/// Larger: a peer that accepts and says nothing is noticed later. Smaller: a busy machine, or one
/// far away, cannot join.
pub const PEER_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two pings of a link.
/// Larger: a dead peer is noticed later. Smaller: idle nodes wake up for nothing.
pub const PEER_PING_EVERY: Duration = Duration::from_millis(500);

/// Silence after which a link is suspect.
/// Larger: requests wait for a dead peer. Smaller: a pause of the scheduler looks like death.
pub const PEER_SUSPECT_AFTER: Duration = Duration::from_secs(2);

/// Silence after which a link is cut and made anew.
/// Larger: a link that a firewall forgot blocks its peer longer. Smaller: a pause costs a link.
pub const PEER_CUT_AFTER: Duration = Duration::from_secs(5);

/// How long a peer may be linked that membership has not named, since it may know of us first.
/// Larger: a node that was put out keeps its link. Smaller: a slow poll of the map cuts a new node.
pub const PEER_UNNAMED_FOR: Duration = Duration::from_secs(10);

/// Longest pause between two attempts to reach a peer; the first is a fiftieth.
/// Larger: a peer that is back is found late. Smaller: a cluster dials a dead node all the time.
pub const PEER_BACKOFF_MAX: Duration = Duration::from_secs(2);

// ---------------------------------------------------------------------------------------------
// Files read at start
// ---------------------------------------------------------------------------------------------

/// Bytes of the config file, and of a file that holds a secret.
/// Larger: a mistaken path (a device, a log) is read for ever. Smaller: nothing real comes near.
pub const CONFIG_FILE_BYTES_MAX: usize = MIB;

// ---------------------------------------------------------------------------------------------
// Messages on their way out
// ---------------------------------------------------------------------------------------------

/// Deliveries of one node under way at once.
/// Larger: sockets and buffers (~40 KB each) for receivers that mostly do not answer.
/// Smaller: a few dozen dead receivers, each waited for until its time-out, hold up all others.
pub const DELIVERIES_MAX: usize = 256;

/// Attempts of one delivery at most.
/// Larger: a receiver that is gone for good is called for days. Smaller: an operator cannot cover
/// a weekend.
pub const DELIVERY_ATTEMPTS_MAX: usize = 20;

/// Bytes of an answer's head that are read of a webhook's receiver; its body never is.
/// Larger: a hostile receiver makes the node hold that much for each delivery. Smaller: ordinary
/// answers with a few cookies fail.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 32 * KIB;

// ---------------------------------------------------------------------------------------------
// Relations between limits
// ---------------------------------------------------------------------------------------------

// A full batch fits an empty lane, with as much again beside it.
const _: () = assert!(2 * BATCH_EVENTS_MAX <= RECORDER_QUEUE_ROWS_MAX);
// A batch is cut into whole transactions, and a lane's queue holds several.
const _: () = assert!(APPEND_ROWS_MAX <= BATCH_EVENTS_MAX);
const _: () = assert!(RECORDER_QUEUE_ROWS_MAX.is_multiple_of(APPEND_ROWS_MAX));
// A full batch of plain events (about 500 bytes each) fits one body.
const _: () = assert!(BATCH_EVENTS_MAX * 500 <= BODY_BYTES_MAX);
// A path and a user agent at their limits leave room for the other headers.
const _: () = assert!(2 * PATH_BYTES_MAX + 2 * USER_AGENT_BYTES_MAX < REQUEST_HEAD_BYTES_MAX / 2);
// A batch of checks for one hot key fits that key's mailbox.
const _: () = assert!(BATCH_CHECKS_MAX <= MAILBOX_MESSAGES_MAX);
const _: () = assert!(PAGE_LIMIT_DEFAULT <= PAGE_LIMIT_MAX);
// Two keys of each resident subscription fit the cache, so that activity alone asks no store.
const _: () = assert!(2 * RESIDENT_DEFAULT <= KEY_CACHE_ENTRIES_MAX);
const _: () = assert!(RESIDENT_DEFAULT <= RESIDENT_MAX);
// A scan with made-up keys cannot take the room of real ones.
const _: () = assert!(NEGATIVE_KEY_CACHE_ENTRIES_MAX < KEY_CACHE_ENTRIES_MAX);
const _: () = assert!(FUTURE_SKEW.as_secs() < ACCEPT_WINDOW_DEFAULT.as_secs());
const _: () = assert!(ACCEPT_WINDOW_DEFAULT.as_secs() <= ACCEPT_WINDOW_MAX.as_secs());
const _: () = assert!(SHARD_COUNT_DEFAULT >= 1);
// The lanes leave connections to checkpoints and reads.
const _: () = assert!(2 * RECORDER_LANES_MAX <= POOL_CONNECTIONS_MAX);
// A full window of the largest batches, or several of the largest bodies, fits its bytes.
const _: () = assert!(4 * PEER_FRAME_BYTES_MAX <= PEER_WINDOW_BYTES);
const _: () = assert!(PEER_BATCH_BYTES_MAX < PEER_BODY_BYTES_MAX);
const _: () = assert!(PEER_BATCH_MESSAGES_MAX <= PEER_WINDOW_MESSAGES);
// Several pings are lost before a peer is suspect, and it is suspect before it is cut.
const _: () = assert!(3 * PEER_PING_EVERY.as_millis() < PEER_SUSPECT_AFTER.as_millis());
const _: () = assert!(PEER_SUSPECT_AFTER.as_millis() < PEER_CUT_AFTER.as_millis());
