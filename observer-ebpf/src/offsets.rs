//! Offsets of the running kernel, and loads through them.

use core::ptr::read_volatile;

use observer_common::Offsets;

/// Set by the agent from the running kernel's BTF before load. The map behind it is frozen and read-only, so the
/// verifier folds each read into a constant and takes `pointer + offset` for the field that it is.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = {
    // SAFETY: all fields are integers.
    unsafe { core::mem::zeroed() }
};

/// One number of [`Offsets`].
macro_rules! offset {
    ($field:ident) => {
        $crate::offsets::number(core::mem::offset_of!(observer_common::Offsets, $field))
    };
}
pub(crate) use offset;

/// Reads the number at `place` bytes into the offsets; for [`offset!`] only.
#[inline(always)]
pub fn number(place: usize) -> usize {
    // SAFETY: `offset!` names a field of the static. Volatile, or the compiler would put the zeros above there.
    unsafe { read_volatile((&raw const OFFSETS as *const u8).add(place) as *const u64) as usize }
}

/// Loads a field. A kernel pointer that has gone bad reads as zero: the verifier turns the load into one with
/// an exception table entry.
///
/// # Safety
/// `from` is a kernel pointer whose type the verifier knows, and `at` the offset of a member as wide as `T`.
#[inline(always)]
pub unsafe fn load<T: Copy>(from: *const u8, at: usize) -> T {
    // SAFETY: the verifier refuses the program unless this is a member of that type.
    unsafe { (from.add(at) as *const T).read_volatile() }
}

/// Loads a pointer field.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn follow(from: *const u8, at: usize) -> *const u8 {
    // SAFETY: as for `load`.
    unsafe { load(from, at) }
}
