//! The agent: from kernel events to alerts.

pub mod app;
pub mod cli;
pub mod config;
pub mod decode;
pub mod delivery;
pub mod detect;
pub mod docs;
pub mod enrich;
pub mod exceptions;
pub mod host;
pub mod inventory;
pub mod kernel;
pub mod limits;
mod memory;
pub mod model;
pub mod pipeline;
pub mod posture;
mod protection;
mod reload;
pub mod render;
mod scheduling;
pub mod sinks;
pub mod telemetry;
