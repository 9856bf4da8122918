//! How the 64 raw bits of a column read as numbers, one marker per field type.

/// A field type, for loops that are compiled once per type.
pub(super) trait Number {
    /// The bits as an unsigned rank of the same order; of doubles the IEEE 754 total order.
    fn rank(bits: u64) -> u64;
    /// The bits of a rank.
    fn unrank(rank: u64) -> u64;
    /// Whether the bits are not a number.
    fn is_nan(_bits: u64) -> bool {
        false
    }
    /// The nearest double.
    fn float(bits: u64) -> f64;
}

/// An integer type.
pub(super) trait Integer: Number {
    /// The exact value.
    fn exact(bits: u64) -> i128;
    /// The type's lowest and highest value.
    const RANGE: (i128, i128);
}

/// `int64`.
pub(super) struct Signed;
/// `uint64`.
pub(super) struct Unsigned;
/// `float64`.
pub(super) struct Double;

const SIGN: u64 = 1 << 63;

impl Number for Signed {
    fn rank(bits: u64) -> u64 {
        bits ^ SIGN
    }
    fn unrank(rank: u64) -> u64 {
        rank ^ SIGN
    }
    fn float(bits: u64) -> f64 {
        bits as i64 as f64
    }
}

impl Integer for Signed {
    fn exact(bits: u64) -> i128 {
        i128::from(bits as i64)
    }
    const RANGE: (i128, i128) = (i64::MIN as i128, i64::MAX as i128);
}

impl Number for Unsigned {
    fn rank(bits: u64) -> u64 {
        bits
    }
    fn unrank(rank: u64) -> u64 {
        rank
    }
    fn float(bits: u64) -> f64 {
        bits as f64
    }
}

impl Integer for Unsigned {
    fn exact(bits: u64) -> i128 {
        i128::from(bits)
    }
    const RANGE: (i128, i128) = (0, u64::MAX as i128);
}

impl Number for Double {
    fn rank(bits: u64) -> u64 {
        // A negative number has all bits turned over, a positive one only its sign.
        bits ^ ((bits as i64 >> 63) as u64 | SIGN)
    }
    fn unrank(rank: u64) -> u64 {
        rank ^ ((!rank as i64 >> 63) as u64 | SIGN)
    }
    fn is_nan(bits: u64) -> bool {
        f64::from_bits(bits).is_nan()
    }
    fn float(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_doubles_totally_and_lead_back() {
        let ascending = [f64::NEG_INFINITY, -1.5, -5e-324, -0.0, 0.0, 5e-324, 2.0, f64::INFINITY];
        for pair in ascending.windows(2) {
            assert!(Double::rank(pair[0].to_bits()) < Double::rank(pair[1].to_bits()));
        }
        for value in ascending {
            assert_eq!(Double::unrank(Double::rank(value.to_bits())), value.to_bits());
        }
        assert!(Signed::rank(-1i64 as u64) < Signed::rank(0));
    }
}
