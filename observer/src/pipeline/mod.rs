//! The stages in a row, and what drives them: rings and the clock when live, a recording when not.

mod apparmor;
mod calls;
mod capabilities;
mod core;
mod held;
mod live;
mod observed;
mod record;
mod resources;
#[cfg(test)]
mod tests;
mod wake;
mod write;

pub use apparmor::ContainerAccesses;
pub use calls::ContainerCalls;
pub use capabilities::{CheckCount, ContainerChecks};
pub use core::{Core, Displaced, Tick};
pub use live::{Live, LiveError, LiveOptions, Output, Status};
pub use record::{RecordError, Recorder, Replay};
pub use resources::WatchStatus;
pub use wake::StopSignal;
