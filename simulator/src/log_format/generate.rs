//! Makes a combined log from a seed: for tests and demonstrations where no real log is at hand.

use std::io::{self, Write};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{LogLine, combined};
use crate::numbers::{float, whole};

/// The first line's time: fixed, so that a seed gives the same file on any day.
const FIRST_MS: i64 = 1_763_942_400_000;
/// Three lines a second on average: 10,000 lines cover an hour.
const GAP_MS_MAX: i64 = 667;
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "curl/8.5.0",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
    "weird \"quoted\" agent\\with a backslash",
    "Straße/1.0",
];
const PATHS: [&str; 6] =
    ["/", "/v1/search", "/v1/items", "/v1/items/42", "/images/logo.png", "/a path/with spaces"];

/// What to generate.
#[derive(Debug, Clone, Copy)]
pub struct Generate {
    /// Lines in the file.
    pub lines: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// Of the lines, this many are cut short in the middle.
    pub malformed: u64,
}

impl Generate {
    /// Writes the log.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let clients = (self.lines / 6).clamp(1, 50_000);
        let mut at_ms = FIRST_MS;
        let mut text = String::new();
        for number in 0..self.lines {
            at_ms += random.random_range(0..GAP_MS_MAX);
            text.clear();
            let query = if random.random_bool(0.3) { "?q=weir&page=2" } else { "" };
            combined::write(&draw(&mut random, clients, at_ms), query, &mut text);
            if self.is_malformed(number) {
                // Without its closing quote no line can be read.
                text.pop();
            }
            text.push('\n');
            out.write_all(text.as_bytes())?;
        }
        out.flush()
    }

    /// Spreads the malformed lines evenly.
    fn is_malformed(&self, number: u64) -> bool {
        let bad = self.malformed.min(self.lines);
        let before = |line: u64| u128::from(line) * u128::from(bad) / u128::from(self.lines.max(1));
        before(number + 1) > before(number)
    }
}

fn draw(random: &mut ChaCha8Rng, clients: u64, at_ms: i64) -> LogLine {
    // A square skews towards the first clients, as real logs do.
    let skew: f64 = random.random();
    let client = whole(skew * skew * float(clients));
    let is_v6 = client % 10 == 9;
    let status = match random.random_range(0..100_u32) {
        0..=4 => 404,
        5..=7 => 304,
        8 => 500,
        _ => 200,
    };
    LogLine {
        client: if is_v6 {
            format!("2001:db8::{client:x}")
        } else {
            format!("10.{}.{}.{}", client >> 16 & 255, client >> 8 & 255, client & 255)
        },
        // The format knows whole seconds only.
        at_ms: at_ms / 1_000 * 1_000,
        method: Some(if random.random_bool(0.9) { "GET" } else { "POST" }.to_owned()),
        path: Some(PATHS[random.random_range(0..PATHS.len())].to_owned()),
        status,
        bytes: if status == 304 { 0 } else { random.random_range(1..100_000) },
        request_bytes: 0,
        duration_ms: None,
        user_agent: Some(AGENTS[random.random_range(0..AGENTS.len())].to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(seed: u64, malformed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let generate = Generate { lines: 1_000, seed, malformed };
        generate.write_to(&mut out).expect("memory takes all");
        out
    }

    #[test]
    fn a_seed_gives_one_file_and_another_seed_another() {
        assert_eq!(log(1, 0), log(1, 0));
        assert_ne!(log(1, 0), log(2, 0));
    }

    #[test]
    fn as_many_lines_as_asked_for_are_malformed_and_the_others_can_be_read() {
        for bad in [0, 1, 7, 1_000] {
            let log = log(3, bad);
            let lines: Vec<_> =
                log.strip_suffix(b"\n").unwrap_or(&log).split(|byte| *byte == b'\n').collect();
            let broken = lines.iter().filter(|line| combined::parse(line).is_err()).count();
            assert_eq!((lines.len(), broken as u64), (1_000, bad));
        }
    }
}
