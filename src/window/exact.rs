//! Exact arithmetic for the moment a metric is read: natural numbers as 64-bit limbs, lowest first, times a
//! power of two, rounded to a double once (to nearest, ties to even).
//!
//! A double is an integer times a power of two, so sums of doubles and of their squares are integers too in a
//! fixed unit. Nothing is rounded before the last step, hence the order of ticks and merges cannot matter.

use std::cmp::Ordering;

/// Drops leading zero limbs.
pub(super) fn trim(limbs: &mut Vec<u64>) {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
}

/// Compares two trimmed numbers.
pub(super) fn compare(a: &[u64], b: &[u64]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.iter().rev().cmp(b.iter().rev()))
}

/// `a - b`, where `a >= b`; trimmed.
pub(super) fn subtract(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut borrow = false;
    let digits = a.iter().enumerate().map(|(i, limb)| {
        let (first, under) = limb.overflowing_sub(b.get(i).copied().unwrap_or(0));
        let (second, further) = first.overflowing_sub(u64::from(borrow));
        borrow = under || further;
        second
    });
    let mut difference: Vec<u64> = digits.collect();
    trim(&mut difference);
    difference
}

/// `|a - b|` and whether `a < b`; both trimmed.
pub(super) fn difference(a: &[u64], b: &[u64]) -> (Vec<u64>, bool) {
    match compare(a, b) {
        Ordering::Less => (subtract(b, a), true),
        _ => (subtract(a, b), false),
    }
}

/// `a * b`; trimmed.
fn multiply(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut product = vec![0u64; a.len() + b.len()];
    for (i, x) in a.iter().enumerate() {
        let mut carry = 0u128;
        for (digit, y) in product[i..].iter_mut().zip(b.iter().chain([&0])) {
            let sum = u128::from(*x) * u128::from(*y) + u128::from(*digit) + carry;
            *digit = sum as u64;
            carry = sum >> 64;
        }
    }
    trim(&mut product);
    product
}

/// Divides in place, rounding down; gives the remainder.
fn divide(limbs: &mut [u64], by: u64) -> u64 {
    limbs.iter_mut().rev().fold(0, |remainder, limb| {
        let part = u128::from(remainder) << 64 | u128::from(*limb);
        *limb = (part / u128::from(by)) as u64;
        (part % u128::from(by)) as u64
    })
}

/// The position of the highest set bit, if any.
fn top_bit(limbs: &[u64]) -> Option<i32> {
    let (i, limb) = limbs.iter().enumerate().rfind(|(_, limb)| **limb != 0)?;
    Some(i as i32 * 64 + 63 - limb.leading_zeros() as i32)
}

/// The 64 bits from position `from` on.
fn bits_at(limbs: &[u64], from: i32) -> u64 {
    let limb = |i: i32| usize::try_from(i).ok().and_then(|i| limbs.get(i)).copied().unwrap_or(0);
    let (i, shift) = (from.div_euclid(64), from.rem_euclid(64));
    if shift == 0 { limb(i) } else { limb(i) >> shift | limb(i + 1) << (64 - shift) }
}

/// Whether any bit below position `below` is set.
fn any_below(limbs: &[u64], below: i32) -> bool {
    let whole = (below.max(0) / 64) as usize;
    let part = limbs.get(whole).is_some_and(|limb| limb & ((1u64 << (below.max(0) % 64)) - 1) != 0);
    part || limbs.iter().take(whole).any(|limb| *limb != 0)
}

/// The double nearest to `limbs * 2^exponent`, ties to even; `more` says that the true number is a little larger.
pub(super) fn to_f64(limbs: &[u64], exponent: i32, more: bool) -> f64 {
    let Some(top) = top_bit(limbs) else { return 0.0 };
    if top + exponent > 1023 {
        return f64::INFINITY;
    }
    // The result is `mantissa * 2^unit`: 53 bits, or fewer where doubles end.
    let unit = (top + exponent - 52).max(-1074);
    let cut = unit - exponent;
    let mut mantissa = bits_at(limbs, cut) & ((1 << 53) - 1);
    let half = cut > 0 && bits_at(limbs, cut - 1) & 1 == 1;
    let sticky = more || any_below(limbs, cut - 1);
    if half && (sticky || mantissa & 1 == 1) {
        mantissa += 1;
    }
    // The leading bit of a normal mantissa adds one to the exponent field, and so does a carry out of rounding.
    f64::from_bits((((unit + 1074) as u64) << 52) + mantissa)
}

/// `limbs * 2^exponent / count`, correctly rounded; `count` is positive.
pub(super) fn mean(limbs: &[u64], exponent: i32, count: u64) -> f64 {
    let mut scaled = [&[0, 0], limbs].concat();
    let rest = divide(&mut scaled, count);
    to_f64(&scaled, exponent - 128, rest != 0)
}

/// The population standard deviation, `sqrt(n Σx² − (Σx)²) / n`, from the exact integers; `count` is positive,
/// `sum` is |Σx| in units of `2^exponent` and `squares` Σx² in units of its square. Within one unit in the last
/// place.
pub(super) fn deviation(sum: &[u64], squares: &[u64], exponent: i32, count: u64) -> f64 {
    let mut total = multiply(squares, &[count]);
    trim(&mut total);
    let spread = subtract(&total, &multiply(sum, sum));
    // Room below, so that dividing by count² leaves more than 53 bits.
    let mut scaled = [&[0, 0, 0, 0], &spread[..]].concat();
    let rest = divide(&mut scaled, count) | divide(&mut scaled, count);
    let Some(top) = top_bit(&scaled) else { return 0.0 };
    // The variance may lie outside the doubles where its root does not: take the root of a number near 1.
    let lift = (top / 2) * 2;
    let root = to_f64(&scaled, -lift, rest != 0).sqrt();
    root * to_f64(&[1], lift / 2 + exponent - 128, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_survive_the_way_through_limbs() {
        for value in [1.0, 0.1, f64::MAX, f64::MIN_POSITIVE, 5e-324, 2.5e-310, 1e300] {
            let bits = value.to_bits();
            let field = (bits >> 52) as i32;
            let mantissa = bits & ((1 << 52) - 1) | u64::from(field > 0) << 52;
            assert_eq!(to_f64(&[mantissa], field.max(1) - 1075, false), value);
            assert_eq!(to_f64(&[0, 0, mantissa, 0], field.max(1) - 1075 - 128, false), value);
        }
        assert_eq!(to_f64(&[u64::MAX], 0, false), u64::MAX as f64);
        assert_eq!(to_f64(&[1], 1024, false), f64::INFINITY);
        assert_eq!(to_f64(&[], 0, false), 0.0);
    }

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        let one = 1u64 << 53;
        assert_eq!(to_f64(&[one + 1], 0, false), one as f64);
        assert_eq!(to_f64(&[one + 1], 0, true), (one + 2) as f64);
        assert_eq!(to_f64(&[one + 3], 0, false), (one + 4) as f64);
        assert_eq!(to_f64(&[u64::MAX], -1074 - 64, false), 5e-324);
        assert_eq!(to_f64(&[1 << 63], -1074 - 64, false), 0.0);
        assert_eq!(to_f64(&[1 << 63], -1074 - 64, true), 5e-324);
    }

    #[test]
    fn means_and_deviations_are_those_of_the_exact_numbers() {
        assert_eq!(mean(&[10], 0, 4), 2.5);
        assert_eq!(mean(&[1], 0, 3), 1.0 / 3.0);
        assert_eq!(mean(&[1], -1074, 2), 0.0);
        assert_eq!(mean(&[3], -1074, 2), 1e-323);
        // 2 4 4 4 5 5 7 9
        assert_eq!(deviation(&[40], &[232], 0, 8), 2.0);
        assert_eq!(deviation(&[5], &[25], 0, 1), 0.0);
        // 0 and 2^-1074 apart: the variance is far below every double, the deviation is not.
        assert_eq!(deviation(&[1 << 10], &[1 << 20], -1074, 2), 512.0 * 5e-324);
        assert_eq!(deviation(&[1 << 53, 0], &[0, 1 << 42], 970, 2), 2f64.powi(1022));
    }
}
