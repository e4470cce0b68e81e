//! Bytes of our own: the snapshot of a subscription, the detail of a rollup, what nodes tell each other.
//!
//! Role: the only room that knows bincode. Bytes begin with a version; the types here are the wire
//! family, apart from the domain's, so that a field added to the domain cannot change old bytes.
//! Golden bytes in the tests must never change: a running cluster reads what older nodes wrote.
//! The road not taken: serde on domain types, which would turn every refactoring into a migration.

pub mod frames;
mod numbers;
pub mod peers;
mod snapshot;

use bincode::config::{Configuration, standard};
use bincode::{Decode, Encode};

pub use snapshot::{decode_snapshot, encode_snapshot};

/// Version of the detail's layout.
const DETAIL_VERSION: u8 = 1;
const CONFIG: Configuration = standard();

/// Bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer node, or not by us.
    #[error("{what} has unknown version {version}")]
    Version {
        /// Which bytes.
        what: &'static str,
        /// Its first byte.
        version: u8,
    },
    /// Cut short, too long, or damaged.
    #[error("{what} is damaged")]
    Damaged {
        /// Which bytes.
        what: &'static str,
        /// The decoder's error, if it got that far.
        #[source]
        source: Option<bincode::error::DecodeError>,
    },
}

/// What a rollup keeps beside its sums.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Detail {
    /// Requests by status code, ascending.
    pub statuses: Vec<(u16, u64)>,
    /// Requests by country, ascending.
    pub countries: Vec<(String, u64)>,
    /// Latency sketch, in the bytes of the `DDSketch` library; empty when nothing was timed.
    pub latency: Vec<u8>,
    /// Largest latency in microseconds.
    pub latency_max_us: u64,
}

/// A detail as bytes.
pub fn encode_detail(detail: &Detail) -> Vec<u8> {
    encode(DETAIL_VERSION, detail)
}

/// A detail from bytes.
pub fn decode_detail(bytes: &[u8]) -> Result<Detail, CodecError> {
    decode("rollup detail", DETAIL_VERSION, bytes)
}

fn encode<T: Encode>(version: u8, wire: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    // Writing to a vector only fails for types that refuse to be encoded; ours do not.
    let written = bincode::encode_into_std_write(wire, &mut bytes, CONFIG);
    debug_assert!(written.is_ok());
    bytes
}

fn decode<T: Decode<()>>(what: &'static str, version: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Err(CodecError::Damaged { what, source: None });
    };
    if first != version {
        return Err(CodecError::Version { what, version: first });
    }
    let (wire, read) = bincode::decode_from_slice(rest, CONFIG)
        .map_err(|source| CodecError::Damaged { what, source: Some(source) })?;
    if read == rest.len() { Ok(wire) } else { Err(CodecError::Damaged { what, source: None }) }
}

/// As [`decode`], for bytes that come from another machine: at most `bytes_max` of them, and what
/// their lengths claim is held to `CLAIMED_BYTES_MAX` before anything is allocated for it.
fn decode_capped<T: Decode<()>, const CLAIMED_BYTES_MAX: usize>(
    what: &'static str,
    version: u8,
    bytes_max: usize,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let damaged = |source| CodecError::Damaged { what, source };
    let (&first, rest) = bytes.split_first().ok_or_else(|| damaged(None))?;
    if first != version {
        return Err(CodecError::Version { what, version: first });
    }
    if bytes.len() > bytes_max {
        return Err(damaged(None));
    }
    let config = CONFIG.with_limit::<CLAIMED_BYTES_MAX>();
    let (wire, read) =
        bincode::decode_from_slice(rest, config).map_err(|error| damaged(Some(error)))?;
    if read == rest.len() { Ok(wire) } else { Err(damaged(None)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_detail_never_changes() {
        let detail = Detail {
            statuses: vec![(200, 9), (404, 1)],
            countries: vec![("DE".into(), 10)],
            latency: vec![1, 2, 3],
            latency_max_us: 12_500,
        };
        let bytes = encode_detail(&detail);
        assert_eq!(decode_detail(&bytes).ok(), Some(detail));
        assert_eq!(hex(&bytes), GOLDEN_DETAIL);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    const GOLDEN_DETAIL: &str = "0102c809fb940101010244450a03010203fbd430";
}
