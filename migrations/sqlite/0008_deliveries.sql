-- How messages of the outbox leave: one row for each channel of a message, so that what arrived on one
-- is never sent again because another failed.

-- A message is addressed once it has its rows in event_deliveries; one that nobody wants has none.
-- next_attempt_at of a message is no longer asked for: its deliveries have their own.
ALTER TABLE event_queue ADD COLUMN addressed INTEGER NOT NULL DEFAULT FALSE;
DROP INDEX event_queue_waiting;
CREATE INDEX event_queue_unaddressed ON event_queue (priority, created_at, id) WHERE NOT addressed;
CREATE INDEX event_queue_pending ON event_queue (created_at) WHERE status = 0;
CREATE INDEX event_queue_subscription ON event_queue (subscription_id, id);

-- channel: webhook, email, payment. endpoint: what it shares with others that go to the same place.
-- status as in event_queue. Whoever sends holds the row by a claim until next_attempt_at, after which
-- anybody may claim it: so the rows of a killed node come back by themselves. priority and created_at
-- are the message's: rows of one lane (subscription, channel) leave in their order, one at a time.
CREATE TABLE event_deliveries (
    event_id        BLOB    NOT NULL REFERENCES event_queue (id) ON DELETE CASCADE,
    channel         TEXT    NOT NULL,
    endpoint        TEXT    NOT NULL,
    subscription_id BLOB    NOT NULL,
    priority        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    status          INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    claim           BLOB,
    last_error      TEXT,
    finished_at     INTEGER,
    PRIMARY KEY (event_id, channel)
) STRICT;
CREATE INDEX event_deliveries_due ON event_deliveries (priority, next_attempt_at) WHERE status = 0;
CREATE INDEX event_deliveries_lane
    ON event_deliveries (subscription_id, channel, priority, created_at, event_id) WHERE status = 0;
CREATE INDEX event_deliveries_claim ON event_deliveries (claim) WHERE claim IS NOT NULL;
