//! The binary interface between observer's kernel programs and its agent.
//!
//! Integers and byte arrays only, in the machine's byte order, with explicit padding and the size of every
//! structure asserted: both sides are built from this file, but a recording outlives a build, so
//! [`ABI_VERSION`] stands in every frame. Userspace copies fields out of a frame (`observer::decode`) and never
//! casts a reference into it.
//!
//! A frame is [`Header`], then the payload of its [`Kind`], then, if [`flags::ANCESTORS`] is set,
//! [`MAX_ANCESTORS`] entries of [`Ancestor`], then (for some kinds) bytes whose lengths the payload names.
#![no_std]

mod audit;
mod capability;
mod frame;
mod kernel;
mod namespaces;
mod payload;

pub use audit::*;
pub use capability::*;
pub use frame::*;
pub use kernel::*;
pub use namespaces::*;
pub use payload::*;

/// Raised whenever the layout or the meaning of anything in a frame changes.
pub const ABI_VERSION: u16 = 3;

/// Fixes a structure's size, so that padding nobody meant does not compile.
macro_rules! assert_size {
    ($($type:ty = $size:expr),+ $(,)?) => { $( const _: () = assert!(core::mem::size_of::<$type>() == $size); )+ };
}
pub(crate) use assert_size;
