//! How far the file grows when the freelist has nothing.
//!
//! Role: compute the size libtdb would choose, in whole numbers. Doing it: `freelist.rs`.
//! Invariants
//! - Same inputs, same result as libtdb: files stay byte-identical. One exception: the last step of
//!   all ends at [`END_MAX`]. libtdb's ends three bytes later, all records behind it are misaligned,
//!   and its own check then calls the file corrupt.
//!
//! Origin: `docs/spec/tdb-format.md` 1.5.

use super::ALIGNMENT;

/// Above this many bytes asked for, room for 2 of them is made, else for 100.
pub const MAX_JUMP_NEED: u32 = 100 * 1024;
/// Above this size the file grows by at least a tenth, else by a quarter.
const LARGE_FILE: u32 = 100 * 1024 * 1024;

/// Where the largest file ends: the last multiple of the alignment below 4 GiB.
const END_MAX: u32 = u32::MAX - u32::MAX % ALIGNMENT;

/// Bytes to add to a file of `map_size` bytes so that an allocation of `need` fits. The result may
/// not fit behind `map_size` in 32 bits: then the file is full.
#[must_use]
pub fn expansion(map_size: u32, need: u32, page_size: u32) -> u32 {
    let max_jump = END_MAX.saturating_sub(map_size);
    if need > max_jump {
        return need;
    }
    let headroom = if need > MAX_JUMP_NEED { 2 } else { 100 };
    let top = need.checked_mul(headroom).and_then(|more| map_size.checked_add(more));
    // libtdb multiplies doubles by 1.25 and 1.10 and cuts the fraction off; both products of a
    // 32-bit number lie so near the exact ones that whole numbers give the same.
    let (factor, divisor) = if map_size > LARGE_FILE { (11, 10) } else { (5, 4) };
    let proportional = u32::try_from(u64::from(map_size) * factor / divisor).ok();
    top.zip(proportional)
        .and_then(|(top, proportional)| {
            top.max(proportional).checked_next_multiple_of(page_size.max(1))
        })
        .filter(|size| *size <= END_MAX)
        .map_or(max_jump, |size| size - map_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_small_record_makes_one_page() {
        assert_eq!(expansion(184, 36, 4096), 3912);
    }

    #[test]
    fn first_transaction_makes_room_for_a_hundred_of_its_size() {
        assert_eq!(expansion(4096, 4108, 4096), 413_696);
    }

    #[test]
    fn large_needs_are_doubled_and_large_files_grow_by_a_tenth() {
        assert_eq!(expansion(4096, 200_000, 4096), 401_408);
        assert_eq!(expansion(200 << 20, 36, 4096), 20 << 20);
    }

    #[test]
    fn the_last_jump_reaches_the_end_of_the_address_space() {
        assert_eq!(expansion(u32::MAX - 4999, 4000, 4096), 4996);
        assert_eq!(expansion(u32::MAX - 11, 4000, 4096), 4000);
    }

    #[test]
    fn a_tenth_in_whole_numbers_equals_the_double_product() {
        let mut size = LARGE_FILE;
        while let Some(next) = size.checked_add(9_973) {
            size = next;
            let double = f64::from(size) * 1.10;
            let whole = u64::from(size) * 11 / 10;
            assert!(double.trunc().to_bits() == (whole as f64).to_bits(), "{size}");
        }
    }
}
