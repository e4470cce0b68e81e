//! Where a subscription lives: its shard, the same on every node and for ever.
//!
//! Role: the one hash in the product. The shard count is fixed when a cluster is born, so the
//! shard of a subscription never changes; what moves between nodes is the shard. The router,
//! the store's writers and the simulator all ask here. The golden vectors below may never
//! change: a different answer would send a subscription's ledger rows to two owners.

use std::num::NonZeroU16;

use xxhash_rust::xxh3::xxh3_64;

/// The shard of a subscription, in `0 .. count`: `xxh3_64` with seed 0 over the sixteen bytes of
/// its id, big-endian as a UUID is written, modulo the cluster's shard count.
///
/// The bias of the modulo is below 2^-48 for any count and so of no interest. The time bits
/// at the front of a `UUIDv7` would cluster neighbours, which is why the id is hashed at all.
#[expect(clippy::cast_possible_truncation, reason = "a remainder by a u16 fits a u16")]
pub fn shard_of(subscription_id: [u8; 16], count: NonZeroU16) -> u16 {
    (xxh3_64(&subscription_id) % u64::from(count.get())) as u16
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use proptest::prelude::*;

    use super::shard_of;

    fn count(count: u16) -> NonZeroU16 {
        NonZeroU16::new(count).expect("the tables hold no zero")
    }

    /// Ids and their shards of 1, 256, 1024 and 65535, computed with an implementation of
    /// XXH3-64 (inputs of 9 to 16 bytes) written from the algorithm's specification.
    const GOLDEN: [(u128, [u16; 4]); 7] = [
        (0x0000_0000_0000_0000_0000_0000_0000_0000, [0, 104, 360, 35783]),
        (0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, [0, 19, 787, 19729]),
        (0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f, [0, 219, 219, 52719]),
        (0x0192_0000_0000_7000_8000_0000_0000_0001, [0, 112, 624, 597]),
        (0x0192_0000_0000_7000_8000_0000_0000_0002, [0, 12, 268, 26951]),
        (0x0192_f0c1_2b3a_7c4d_8e5f_6071_8293_a4b5, [0, 27, 795, 50560]),
        (0x0193_0a5e_77d2_7b11_b3c4_5d6e_7f80_9102, [0, 73, 585, 21525]),
    ];

    #[test]
    fn golden_vectors_never_change() {
        for (id, shards) in GOLDEN {
            let found = [1, 256, 1024, 65535].map(|n| shard_of(id.to_be_bytes(), count(n)));
            assert_eq!(found, shards, "{id:032x}");
        }
    }

    /// Pearson's chi-squared of `ids` over `shards`, less its mean and in standard deviations.
    fn excess(ids: impl Iterator<Item = u128>, shards: u16) -> f64 {
        let mut loads = vec![0_u32; usize::from(shards)];
        for id in ids {
            loads[usize::from(shard_of(id.to_be_bytes(), count(shards)))] += 1;
        }
        let expected = f64::from(loads.iter().sum::<u32>()) / f64::from(shards);
        let chi: f64 = loads.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        let freedom = f64::from(shards - 1);
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn neighbouring_ids_spread_evenly() {
        // UUIDv7s of one process: a clock that ticks, or a counter in the low bits.
        const BASE: u128 = 0x0192_0000_0000_7000_8000_0000_0000_0000;
        for shards in [3, 100, 256, 1024, 4096] {
            let ticking = (0..200_000_u128).map(|n| BASE + (n << 80));
            let counting = (0..200_000_u128).map(|n| BASE + n);
            for (name, excess) in
                [("clock", excess(ticking, shards)), ("counter", excess(counting, shards))]
            {
                // Deterministic input, so a bound of five deviations is a fact and not a chance.
                assert!(excess.abs() < 5.0, "{name} over {shards}: {excess}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_shard_is_below_the_count(id in any::<[u8; 16]>(), n in 1..=u16::MAX) {
            prop_assert!(shard_of(id, count(n)) < n);
        }
    }
}
