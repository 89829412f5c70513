//! What the agent says about itself: metrics, health, and its own log.

pub mod http;
pub mod log;
pub mod metrics;
mod process;

pub use http::Health;
pub use metrics::{Metrics, Ring};
