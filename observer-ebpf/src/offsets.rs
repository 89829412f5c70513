//! Offsets of the running kernel, what it can do, and loads.

use core::{
    mem::MaybeUninit,
    ptr::{null, read_volatile},
};

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use observer_common::{Offsets, ability};

/// Set by the agent before load: see [`ability`].
#[unsafe(no_mangle)]
static ABILITIES: u64 = 0;

/// Whether all of these abilities are there. A constant to the verifier, which drops the branch not taken.
#[inline(always)]
pub fn able(abilities: u64) -> bool {
    // SAFETY: the static's own address. Volatile, or the compiler would put the zero above there.
    unsafe { read_volatile(&raw const ABILITIES) & abilities == abilities }
}

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

/// A kernel object, and how its members are loaded.
///
/// Directly is fastest, where the verifier knows the pointer's type (one that has gone bad reads as zero: it turns the load into
/// one with an exception table entry). But for each pointer that is loaded through a trusted one it looks through all the
/// kernel's types by name, a millisecond each (`btf_nested_type_is_trusted`, kernel/bpf/btf.c). So only programs that run at
/// every fork and exec do that, and those for rarer events ask the helper.
#[derive(Clone, Copy)]
pub struct Place {
    pub at: *const u8,
    directly: bool,
}

impl Place {
    /// Of a program that runs often.
    #[inline(always)]
    pub fn often(at: *const u8) -> Self {
        Place { at, directly: true }
    }
    /// Of one that does not.
    #[inline(always)]
    pub fn seldom(at: *const u8) -> Self {
        Place { at, directly: false }
    }
}

/// Loads a field.
///
/// # Safety
/// `from` is a kernel pointer whose type the verifier knows, and `at` the offset of a member as wide as `T`, an integer
/// or a pointer.
#[inline(always)]
pub unsafe fn load<T: Copy>(from: Place, at: usize) -> T {
    if able(ability::TYPED_LOADS) && (from.directly || !able(ability::READ_KERNEL)) {
        // SAFETY: the verifier refuses the program unless this is a member of that type.
        unsafe { (from.at.wrapping_add(at) as *const T).read_volatile() }
    } else {
        // SAFETY: any bit pattern is a value of what is loaded.
        unsafe { read(from.at, at) }
    }
}

/// Loads a set of capabilities (`kernel_cap_t`): 64 bits, before 6.3 in two halves, and the verifier takes no load across both.
///
/// # Safety
/// As for [`load`], of such a set.
#[inline(always)]
pub unsafe fn load_set(from: Place, at: usize) -> u64 {
    // SAFETY: the caller's word.
    unsafe {
        if from.directly || !able(ability::READ_KERNEL) {
            let (low, high): (u32, u32) = (load(from, at), load(from, at + 4));
            (high as u64) << 32 | low as u64
        } else {
            load(from, at)
        }
    }
}

/// Loads a pointer field.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn follow(from: Place, at: usize) -> Place {
    // SAFETY: as for `load`.
    Place { at: unsafe { load(from, at) }, ..from }
}

/// A field by helper, whatever the pointer is; zeros where it cannot be read, and where the helper is refused.
///
/// # Safety
/// Any bit pattern, and zeros, are values of `T`.
#[inline(always)]
pub unsafe fn read<T: Copy>(from: *const u8, at: usize) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    if able(ability::READ_KERNEL) {
        // SAFETY: the destination is as long as said; the helper checks the source and zeroes on failure.
        unsafe {
            let source = from.wrapping_add(at) as *const _;
            bpf_probe_read_kernel(value.as_mut_ptr() as *mut _, size_of::<T>() as u32, source);
        }
    }
    // SAFETY: zeroed, and then perhaps written, by the caller's word a value either way.
    unsafe { value.assume_init() }
}

/// A field by helper where that is allowed, else directly: for places behind branches, where a direct load costs the
/// verifier most.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub unsafe fn peek<T: Copy>(from: *const u8, at: usize) -> T {
    // SAFETY: the caller's word.
    unsafe { load(Place::seldom(from), at) }
}

/// A pointer that is not there.
pub const NOWHERE: *const u8 = null();

/// Copies a NUL-terminated text of the kernel's; returns its length with the NUL, less than 1 if there is none.
///
/// # Safety
/// `into` is `size` writable bytes of map memory.
#[inline(always)]
pub unsafe fn read_text(into: *mut u8, size: usize, from: *const u8) -> i64 {
    if !able(ability::READ_KERNEL) {
        return 0;
    }
    // SAFETY: the helper checks what it reads, and writes no more than the given size.
    unsafe { bpf_probe_read_kernel_str(into as *mut _, size as u32, from as *const _) }
}
