//! observer's kernel programs.
//!
//! The verifier is the compiler's second half here: loads go straight through typed pointers at offsets that it
//! sees as constants (`offsets`), every loop is bounded, and whatever a program writes lies in a per-CPU
//! scratch frame (`emit`). State that must survive an escape lies in `task` and `slots`; what is worth
//! reporting is decided in `probes`, one file per topic.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod audit;
mod climb;
mod emit;
mod offsets;
mod probes;
mod root;
mod slots;
mod task;
mod turn;

/// Debug lines through aya-log, compiled in only with the feature `log`.
#[macro_export]
macro_rules! debug_log {
    ($ctx:expr, $($arg:tt)*) => {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!($ctx, $($arg)*);
    };
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Unreachable: nothing here can panic, and the verifier would refuse the loop.
    loop {}
}

/// Lets clippy of a compiler without a BPF `core` check this crate for the host.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
