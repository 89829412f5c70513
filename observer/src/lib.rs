//! The agent: from kernel events to alerts.
pub mod kernel;
