//! The open form of an exact sum: a growing natural number in a few words beside the window's other states.
//!
//! Layout: a header word and `N` limbs. The limbs are a piece of the full number from limb `base` on, which is
//! set by the first value. Doubles of one field seldom spread further than that; where they do, or where a
//! carry leaves the piece, the number moves to a full-width [`Side`] entry, once. Both forms close into the same
//! words: `first limb << 32 | limbs`, then the limbs without zeros at either end.
//!
//! The idea of summing doubles in one wide fixed-point number is Kulisch's; small pieces of it as used here
//! follow R. Neal, "Fast exact summation using small and large superaccumulators" (2015).

use super::exact::trim;

/// Limbs that hold any sum of 2^64 squares of doubles in units of 2^-2148.
const WIDE: usize = 68;

/// Growing vectors that do not fit a window's fixed words, by handle; 0 is no handle.
#[derive(Debug, Default)]
pub(super) struct Side {
    vectors: Vec<Vec<u64>>,
    free: Vec<u32>,
}

impl Side {
    /// A handle to an empty vector.
    pub(super) fn allocate(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.vectors.push(Vec::new());
            self.vectors.len() as u32
        })
    }

    /// The vector of `handle`.
    pub(super) fn get(&mut self, handle: u32) -> &mut Vec<u64> {
        &mut self.vectors[handle as usize - 1]
    }

    /// Takes `handle` back.
    pub(super) fn release(&mut self, handle: u32) {
        // A few kilobytes are worth keeping for the next window, a whole burst of wide ones is not.
        if self.free.len() < 1024 {
            self.get(handle).clear();
        } else {
            *self.get(handle) = Vec::new();
        }
        self.free.push(handle);
    }
}

/// Adds `mantissa * 2^shift` to the number in `state`; the shifted mantissa spans at most `P` limbs.
#[inline]
pub(super) fn add<const P: usize>(state: &mut [u64], side: &mut Side, mantissa: u128, shift: u32) {
    if mantissa == 0 {
        return;
    }
    let (limb, offset) = (shift / 64, shift % 64);
    let rest = if offset == 0 { mantissa >> 64 } else { mantissa >> (64 - offset) };
    let parts = [(mantissa << offset) as u64, rest as u64, (rest >> 64) as u64];
    let Some((header, limbs)) = state.split_first_mut() else { return };
    if *header == 0 {
        *header = u64::from(limb.saturating_sub(1)) + 1;
    }
    let at = u64::from(limb).wrapping_sub(*header - 1) as usize;
    if at <= limbs.len() - P {
        if add_parts(&mut limbs[at..], &parts[..P]) {
            let above = *header as usize - 1 + limbs.len();
            add_parts(&mut spill(state, side)[above..], &[1]);
        }
    } else {
        add_parts(&mut spill(state, side)[limb as usize..], &parts[..P]);
    }
}

/// Adds `parts` at the low end of `limbs`; true when a carry left at the high end.
#[inline]
fn add_parts(limbs: &mut [u64], parts: &[u64]) -> bool {
    let mut carry = false;
    for (limb, part) in limbs.iter_mut().zip(parts) {
        let (first, over) = limb.overflowing_add(*part);
        let (second, further) = first.overflowing_add(u64::from(carry));
        (*limb, carry) = (second, over || further);
    }
    for limb in limbs.iter_mut().skip(parts.len()) {
        if !carry {
            return false;
        }
        (*limb, carry) = limb.overflowing_add(1);
    }
    carry
}

/// The full-width limbs of the number in `state`, moved there if they are not yet.
#[cold]
fn spill<'s>(state: &mut [u64], side: &'s mut Side) -> &'s mut [u64] {
    if state[0] >> 32 == 0 {
        let handle = side.allocate();
        let base = state[0] as usize - 1;
        let wide = side.get(handle);
        wide.resize(WIDE, 0);
        for (limb, part) in wide[base..].iter_mut().zip(&state[1..]) {
            *limb = *part;
        }
        // As a base it lies far above every limb, so that the piece is not used any more.
        state[0] = u64::from(handle) << 32;
    }
    side.get((state[0] >> 32) as u32)
}

/// Appends the closed form of `state` to `out` and lets go of what it holds.
pub(super) fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>) {
    match (state[0] >> 32) as u32 {
        0 => write(state[0].saturating_sub(1), &state[1..], out),
        handle => {
            write(0, side.get(handle), out);
            side.release(handle);
        }
    }
    state[0] = 0;
}

fn write(base: u64, limbs: &[u64], out: &mut Vec<u64>) {
    let Some(low) = limbs.iter().position(|limb| *limb != 0) else {
        return out.push(0);
    };
    let high = limbs.iter().rposition(|limb| *limb != 0).unwrap_or(low);
    out.push((base + low as u64) << 32 | (high - low + 1) as u64);
    out.extend_from_slice(&limbs[low..=high]);
}

/// Splits one closed number off the front: its lowest limb's place, its limbs, and what follows.
pub(super) fn split(closed: &[u64]) -> (usize, &[u64], &[u64]) {
    let Some((header, rest)) = closed.split_first() else { return (0, &[], &[]) };
    let (limbs, rest) = rest.split_at((*header as u32 as usize).min(rest.len()));
    (((header >> 32) as usize).min(WIDE), limbs, rest)
}

/// Adds the closed number at the front of `closed` to `state`; gives what follows it.
pub(super) fn merge<'c>(state: &mut [u64], side: &mut Side, closed: &'c [u64]) -> &'c [u64] {
    let (base, limbs, rest) = split(closed);
    for (i, limb) in limbs.iter().enumerate().take(WIDE.saturating_sub(base + 1)) {
        add::<2>(state, side, u128::from(*limb), (base + i) as u32 * 64);
    }
    rest
}

/// The closed number at the front of `closed` with all its limbs, trimmed; and what follows it.
pub(super) fn read(closed: &[u64]) -> (Vec<u64>, &[u64]) {
    let (base, limbs, rest) = split(closed);
    let mut full = vec![0; base];
    full.extend_from_slice(limbs);
    trim(&mut full);
    (full, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds up `(mantissa, shift)` pairs and closes.
    fn sum(values: &[(u64, u32)]) -> Vec<u64> {
        let (mut state, mut side, mut out) = ([0; 6], Side::default(), Vec::new());
        for (mantissa, shift) in values {
            add::<2>(&mut state, &mut side, u128::from(*mantissa), *shift);
        }
        close(&mut state, &mut side, &mut out);
        out
    }

    #[test]
    fn far_apart_values_and_carries_out_of_the_piece_are_kept() {
        let both = sum(&[(1, 0), (1, 2_090), (1, 0)]);
        assert_eq!(read(&both).0, [&[2][..], &[0; 31], &[1 << (2_090 - 32 * 64)]].concat());
        assert_eq!(both, sum(&[(1, 2_090), (2, 0)]));
        let full: Vec<(u64, u32)> = (9..15).map(|limb| (u64::MAX, limb * 64)).collect();
        let carried = sum(&[&full[..], &[(1, 9 * 64)]].concat());
        assert_eq!(carried, [15 << 32 | 1, 1]);
    }

    #[test]
    fn merging_closed_numbers_adds_them() {
        let (mut state, mut side, mut out) = ([0; 6], Side::default(), Vec::new());
        for part in [sum(&[(7, 100)]), sum(&[]), sum(&[(u64::MAX, 100), (3, 1_500)])] {
            assert!(merge(&mut state, &mut side, &part).is_empty());
        }
        close(&mut state, &mut side, &mut out);
        assert_eq!(out, sum(&[(3, 1_500), (u64::MAX, 100), (7, 100)]));
        assert!(merge(&mut state, &mut side, &[u64::MAX, 1, 2]).is_empty());
    }
}
