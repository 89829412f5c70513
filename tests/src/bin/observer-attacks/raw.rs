//! 32-bit system calls made from 64-bit code: the door that per-syscall tracepoints do not see.

use std::arch::asm;

pub(crate) const CHROOT: i32 = 61;
pub(crate) const CLONE: i32 = 120;
pub(crate) const UNSHARE: i32 = 310;
pub(crate) const SETNS: i32 = 346;

/// `int 0x80` with up to two arguments. Pointers must lie below 4 GiB.
///
/// The kernel returns -errno, and kills the process with SIGSEGV where 32-bit emulation is compiled out.
pub(crate) fn int80(number: i32, first: u32, second: u32) -> i32 {
    let result: i32;
    // SAFETY: rbx is LLVM's own and cannot be an operand, so it is kept in another register around the call;
    // the kernel clears r8 to r11 on this entry path, which the clobbers say. The calls made through here take
    // plain integers, or a path in memory mapped below 4 GiB.
    unsafe {
        asm!(
            "mov {saved}, rbx",
            "mov ebx, {first:e}",
            "int 0x80",
            "mov rbx, {saved}",
            saved = out(reg) _,
            first = in(reg) first,
            inlateout("eax") number => result,
            in("ecx") second,
            in("edx") 0,
            in("esi") 0,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    result
}
