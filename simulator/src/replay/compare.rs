//! File against Weir, total by total.

use serde::Serialize;

use super::options::ExpectedTotal;
use super::scan::FileSums;
use super::sums::Sums;
use crate::numbers::count;

/// The busiest clients that are listed.
const BUSIEST: usize = 5;
/// Clients that differ are listed up to this many.
const DIFFERENCES_MAX: usize = 20;

/// One total, from the file and from Weir.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What is counted.
    pub name: String,
    /// What the file says, of the lines that were let through.
    pub file: u64,
    /// What Weir says.
    pub weir: u64,
    /// Whether they agree, events of unknown outcome allowed for.
    pub agrees: bool,
}

/// Compares what was sent with what Weir recorded. Up to `unknown` events may be missing.
pub(super) fn compare(sent: &Sums, weir: &Sums, unknown: u64) -> Vec<Row> {
    let counted = |name, file, weir| counted(name, file, weir, unknown);
    let mut rows = vec![
        counted("requests".to_owned(), sent.requests, weir.requests),
        Row {
            name: "response bytes".to_owned(),
            file: sent.bytes,
            weir: weir.bytes,
            agrees: weir.bytes == sent.bytes || (unknown > 0 && weir.bytes < sent.bytes),
        },
        counted(
            "distinct clients".to_owned(),
            count(sent.clients.len()),
            count(weir.clients.len()),
        ),
    ];
    let statuses = sent.statuses.keys().chain(weir.statuses.keys());
    let statuses: std::collections::BTreeSet<_> = statuses.collect();
    rows.extend(statuses.into_iter().map(|status| {
        let of = |sums: &Sums| sums.statuses.get(status).copied().unwrap_or(0);
        counted(format!("status {status}"), of(sent), of(weir))
    }));
    let days: std::collections::BTreeSet<_> = sent.days.keys().chain(weir.days.keys()).collect();
    rows.extend(days.into_iter().map(|day| {
        let of = |sums: &Sums| sums.days.get(day).copied().unwrap_or(0);
        counted(format!("day {day} (as replayed)"), of(sent), of(weir))
    }));
    rows.extend(sent.busiest(BUSIEST).into_iter().map(|(address, requests)| {
        let found = weir.clients.get(address).map_or(0, |client| client.requests);
        counted(format!("client {address}"), requests, found)
    }));
    rows.extend(differing_clients(sent, weir, unknown));
    rows
}

/// On the replay's own plan every line is one unit.
pub(super) fn units(sent: u64, weir: u64, unknown: u64) -> Row {
    counted("units charged".to_owned(), sent, weir, unknown)
}

fn counted(name: String, file: u64, weir: u64, unknown: u64) -> Row {
    Row { name, file, weir, agrees: weir <= file && weir + unknown >= file }
}

/// Clients whose statuses or bytes differ although their requests may not.
fn differing_clients(sent: &Sums, weir: &Sums, unknown: u64) -> Vec<Row> {
    if unknown > 0 {
        return Vec::new();
    }
    let nothing = super::sums::ClientSums::default();
    sent.clients
        .iter()
        .filter_map(|(address, mine)| {
            let theirs = weir.clients.get(address).unwrap_or(&nothing);
            let what = if mine.requests != theirs.requests {
                return Some((address, "requests", mine.requests, theirs.requests));
            } else if mine.bytes != theirs.bytes {
                "bytes"
            } else if mine.statuses != theirs.statuses {
                return Some((address, "statuses", mine.requests, theirs.requests));
            } else {
                return None;
            };
            Some((address, what, mine.bytes, theirs.bytes))
        })
        .take(DIFFERENCES_MAX)
        .map(|(address, what, file, weir)| Row {
            name: format!("client {address}: {what} differ"),
            file,
            weir,
            agrees: false,
        })
        .collect()
}

/// Holds the file against totals that the caller knows from elsewhere.
pub(super) fn expected(file: &FileSums, totals: &[ExpectedTotal]) -> Vec<Row> {
    totals
        .iter()
        .map(|total| {
            let found = total_of(file, &total.name);
            Row {
                name: format!("{} (expected | found in the file)", total.name),
                file: total.value,
                weir: found,
                agrees: found == total.value,
            }
        })
        .collect()
}

fn total_of(file: &FileSums, name: &str) -> u64 {
    if let Some(status) = name.strip_prefix("status.") {
        let status = status.parse().ok();
        return status
            .and_then(|status: u16| file.sums.statuses.get(&status))
            .copied()
            .unwrap_or(0);
    }
    if let Some(address) = name.strip_prefix("client.") {
        return file.sums.clients.get(address).map_or(0, |client| client.requests);
    }
    if let Some(day) = name.strip_prefix("day.") {
        return file.sums.days.get(day).copied().unwrap_or(0);
    }
    match name {
        "lines" => file.lines,
        "parsed" => file.parsed,
        "malformed" => file.malformed,
        "clients" => file.clients,
        "bytes" => file.sums.bytes,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_format::{Format, LogLine};

    fn sums(lines: &[&str]) -> Sums {
        let mut sums = Sums::default();
        for line in lines {
            sums.add(&line_of(line), 0);
        }
        sums
    }

    fn line_of(text: &str) -> LogLine {
        let (client, rest) = text.split_once(' ').expect("client, then status and bytes");
        let line =
            format!(r#"{client} - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" {rest} "-" "a""#);
        Format::Combined.parse(line.as_bytes()).expect("a combined line")
    }

    fn wrong(rows: &[Row]) -> Vec<&str> {
        rows.iter().filter(|row| !row.agrees).map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn equal_sums_agree_in_every_row() {
        let one = sums(&["a 200 5", "b 404 7", "a 200 1"]);
        assert_eq!(wrong(&compare(&one, &one.clone(), 0)), [""; 0]);
    }

    #[test]
    fn a_swap_between_two_clients_is_seen_although_the_totals_agree() {
        let sent = sums(&["a 200 5", "b 404 7"]);
        let weir = sums(&["a 404 5", "b 200 7"]);
        let rows = compare(&sent, &weir, 0);
        assert_eq!(wrong(&rows), ["client a: statuses differ", "client b: statuses differ"]);
    }

    #[test]
    fn an_event_of_unknown_outcome_may_be_missing_but_not_two() {
        let sent = sums(&["a 200 5", "a 200 5", "a 200 5"]);
        assert_eq!(wrong(&compare(&sent, &sums(&["a 200 5", "a 200 5"]), 1)), [""; 0]);
        assert!(!wrong(&compare(&sent, &sums(&["a 200 5"]), 1)).is_empty());
        assert!(!wrong(&compare(&sent, &sums(&["a 200 5", "a 200 5"]), 0)).is_empty());
    }
}
