//! One partition of `usage_records` per day of `event_time`, made before the first row needs it.
//!
//! A partition is made beside the table and then attached: that takes a lock which neither readers
//! nor writers of the table wait for, where `CREATE TABLE … PARTITION OF` would stop all of them.
//! Whoever makes one holds an advisory lock, so two nodes that need the same day make it once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{AssertSqlSafe, query, query_scalar, raw_sql};
use weir_core::units::Micros;

use super::Conn;
use super::connections::Connections;
use super::session::Session;
use crate::Result;
use crate::failure::{Call, Outcome};
use crate::rows::LedgerRow;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Advisory lock of those who make partitions: "weir" and a number of its own.
const LOCK_KEY: i64 = 0x7765_6972_0000_0001;

/// Days that are known to have a partition.
#[derive(Default)]
pub(super) struct Partitions {
    known: Mutex<HashSet<i64>>,
}

/// The day of a moment, counted from the Unix epoch.
pub(super) fn day_of(moment: Micros) -> i64 {
    moment.get().div_euclid(MICROS_PER_DAY)
}

/// The days that rows fall on, ascending.
pub(super) fn days_of(rows: &[LedgerRow]) -> Vec<i64> {
    let mut days: Vec<i64> = rows.iter().map(|row| day_of(row.event_time)).collect();
    days.sort_unstable();
    days.dedup();
    days
}

impl Partitions {
    /// Makes the partitions of these days that are not there yet. Each is a transaction of its own,
    /// so that a call that runs out of time has still come nearer.
    pub(super) async fn make(&self, connections: &Arc<Connections>, days: &[i64]) -> Result<()> {
        for day in self.unknown(days) {
            let call = Call::new("make a partition");
            let mut session = Session::write(connections, &call).await?;
            let done = make_one(session.connection(), day).await;
            session.end(done).await?;
            self.lock_known().insert(day);
        }
        Ok(())
    }

    /// Trusts nothing seen so far.
    pub(super) fn forget_all(&self) {
        self.lock_known().clear();
    }

    fn unknown(&self, days: &[i64]) -> Vec<i64> {
        let known = self.lock_known();
        days.iter().copied().filter(|day| !known.contains(day)).collect()
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn make_one(connection: &mut Conn, day: i64) -> Outcome<()> {
    let table = table_of(day);
    // Locked before looking: a commit shows its rows a moment before it tells other sessions to read
    // the table's partitions anew, and gives the lock back only after that. Who saw the row without
    // the lock could insert by the old list and be refused.
    query("SELECT pg_advisory_xact_lock($1)").bind(LOCK_KEY).execute(&mut *connection).await?;
    if is_attached(connection, &table).await? {
        return Ok(());
    }
    let start = day.saturating_mul(MICROS_PER_DAY);
    let end = start.saturating_add(MICROS_PER_DAY);
    let create = format!(
        "CREATE TABLE IF NOT EXISTS \"{table}\" (LIKE usage_records INCLUDING ALL); \
         ALTER TABLE usage_records ATTACH PARTITION \"{table}\" \
         FOR VALUES FROM ({start}) TO ({end})"
    );
    // The text holds nothing but numbers of ours.
    raw_sql(AssertSqlSafe(create)).execute(connection).await?;
    Ok(())
}

async fn is_attached(connection: &mut Conn, table: &str) -> Outcome<bool> {
    let statement = "SELECT EXISTS (SELECT 1 FROM pg_inherits i \
                     JOIN pg_class c ON c.oid = i.inhrelid \
                     WHERE i.inhparent = 'usage_records'::regclass AND c.relname = $1)";
    Ok(query_scalar(statement).bind(table).fetch_one(connection).await?)
}

/// `usage_records_20261124`: a name by date, for whoever archives by hand.
fn table_of(day: i64) -> String {
    let (year, month, day) = civil_date(day);
    format!("usage_records_{year:04}{month:02}{day:02}")
}

/// Year, month and day of a day counted from the Unix epoch, in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil_date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months counted from March, so that the leap day is the last of the year.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_by_date() {
        for (day, table) in [
            (0, "usage_records_19700101"),
            (-1, "usage_records_19691231"),
            (11_016, "usage_records_20000229"),
            (11_017, "usage_records_20000301"),
            (20_781, "usage_records_20261124"),
        ] {
            assert_eq!(table_of(day), table);
        }
    }

    #[test]
    fn neighbouring_days_never_share_a_name() {
        let names: HashSet<String> = (-40_000..40_000).map(table_of).collect();
        assert_eq!(names.len(), 80_000);
    }
}
