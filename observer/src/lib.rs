//! The agent: from kernel events to alerts.

pub mod decode;
pub mod detect;
pub mod enrich;
pub mod host;
pub mod kernel;
pub mod model;
pub mod pipeline;
