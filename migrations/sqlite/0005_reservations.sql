-- How a reservation ended is in the ledger alone: the row of kind commit with its id, inserted once
-- whoever commits, releases or reports usage at the same time. What was released before has no such row
-- and must not be found open.
DELETE FROM quota_reservations WHERE released_at IS NOT NULL;
ALTER TABLE quota_reservations DROP COLUMN released_at;

-- Forgetting holds that returned long ago.
CREATE INDEX quota_reservations_expires_at ON quota_reservations (expires_at);
