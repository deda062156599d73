//! Shuffles without memory: a permutation that is worked out for one place at a time.

/// Rounds of the network; four make a permutation that looks random.
const ROUNDS: u64 = 4;

/// A number that looks random and depends on both.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What stands at `place` of the shuffle of `0..len` that `key` names.
///
/// A Feistel network permutes the smallest range of 4^n numbers that holds `0..len`. A number outside of `0..len` is
/// permuted again until it is inside, which takes four turns at most on average.
pub(super) fn shuffled(place: usize, len: usize, key: u64) -> usize {
    if len < 2 || place >= len {
        return place;
    }
    let half_bits = (usize::BITS - (len - 1).leading_zeros()).div_ceil(2);
    let mask = (1_u64 << half_bits) - 1;
    let mut number = place as u64;
    loop {
        let (mut left, mut right) = (number >> half_bits, number & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (mix(key ^ (round << 56), right) & mask));
        }
        number = left << half_bits | right;
        if number < len as u64 {
            return number as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_shuffle_holds_each_number_once_and_differs_by_key() {
        for len in [0, 1, 2, 3, 4, 5, 17, 100, 1000] {
            let order = |key| (0..len).map(|place| shuffled(place, len, key)).collect::<Vec<_>>();
            let all: HashSet<usize> = order(7).into_iter().collect();
            assert_eq!(all, (0..len).collect(), "{len}");
            assert_eq!(order(7), order(7));
            let orders: HashSet<Vec<usize>> = (0..64).map(order).collect();
            assert!(len < 2 || orders.len() > 1, "{len}");
        }
    }
}
