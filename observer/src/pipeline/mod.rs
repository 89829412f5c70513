//! The stages in a row, and what drives them: rings and the clock when live, a recording when not.

mod capabilities;
mod core;
mod held;
mod live;
mod record;
mod resources;
#[cfg(test)]
mod tests;
mod write;

pub use capabilities::ContainerChecks;
pub use core::{Core, Displaced, Tick};
pub use live::{Live, LiveError, LiveOptions, Output, Status, StopSignal};
pub use record::{RecordError, Recorder, Replay};
pub use resources::WatchStatus;
