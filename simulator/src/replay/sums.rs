//! Sums over log lines: what the file holds, what was sent, what Weir answers. All three are of one
//! type, so comparing them is comparing like with like.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::Stats;
use crate::log_format::LogLine;

/// Sums over some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// Requests.
    pub requests: u64,
    /// Response bytes.
    pub bytes: u64,
    /// Requests by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests by UTC day.
    pub days: BTreeMap<String, u64>,
    /// The same by client address.
    #[serde(skip)]
    pub clients: BTreeMap<String, ClientSums>,
}

/// Sums over the requests of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSums {
    /// Requests.
    pub requests: u64,
    /// Response bytes.
    pub bytes: u64,
    /// Requests by status.
    pub statuses: BTreeMap<u16, u64>,
}

impl Sums {
    /// Adds a line, its time moved by `shift_ms`.
    pub fn add(&mut self, line: &LogLine, shift_ms: i64) {
        self.requests += 1;
        self.bytes += line.bytes;
        *self.statuses.entry(line.status).or_default() += 1;
        *self.days.entry(day_of(line.at_ms + shift_ms)).or_default() += 1;
        let client = match self.clients.get_mut(&line.client) {
            Some(client) => client,
            None => self.clients.entry(line.client.clone()).or_default(),
        };
        client.requests += 1;
        client.bytes += line.bytes;
        *client.statuses.entry(line.status).or_default() += 1;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        add_all(&mut self.statuses, other.statuses);
        add_all(&mut self.days, other.days);
        for (address, theirs) in other.clients {
            let client = self.clients.entry(address).or_default();
            client.requests += theirs.requests;
            client.bytes += theirs.bytes;
            add_all(&mut client.statuses, theirs.statuses);
        }
    }

    /// Adds what Weir answers for one client.
    pub fn add_stats(&mut self, address: &str, stats: &Stats) {
        let client = ClientSums {
            requests: stats.requests,
            bytes: stats.bytes_out,
            statuses: stats
                .status_codes
                .iter()
                .filter_map(|(status, number)| Some((status.parse().ok()?, *number)))
                .filter(|(_, number)| *number > 0)
                .collect(),
        };
        self.requests += client.requests;
        self.bytes += client.bytes;
        add_all(&mut self.statuses, client.statuses.clone());
        if client.requests > 0 {
            self.clients.insert(address.to_owned(), client);
        }
    }

    /// The clients with the most requests, busiest first.
    pub fn busiest(&self, number: usize) -> Vec<(&str, u64)> {
        let mut clients: Vec<_> = self
            .clients
            .iter()
            .map(|(address, client)| (address.as_str(), client.requests))
            .collect();
        clients.sort_by(|one, two| two.1.cmp(&one.1).then(one.0.cmp(two.0)));
        clients.truncate(number);
        clients
    }
}

fn add_all<K: Ord>(mine: &mut BTreeMap<K, u64>, theirs: BTreeMap<K, u64>) {
    for (key, number) in theirs {
        *mine.entry(key).or_default() += number;
    }
}

/// The UTC day as `2015-05-17`.
pub(super) fn day_of(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned_datetime(jiff::tz::TimeZone::UTC).date().to_string()
}
