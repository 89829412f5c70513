//! The harness of the live tests: real containers, real attacks, the real agent.
//!
//! One file per thing that a test can start. Everything is a guard: what a test starts is ended in `Drop`, by its
//! own id, also when the test panics; what the whole test process shares (the docker daemon, the scratch
//! directory) is ended by an exit handler, and what a killed test process left is swept by the next one.
//!
//! Nothing here touches what it did not make: containers carry this process's pid in their ids, cgroups lie
//! below `/observer-test-PID`, daemons have directories and sockets of their own, and the targets of attacks are
//! `sleep`s started for the purpose.

pub mod agent;
pub mod alert;
pub mod audit_log;
pub mod btf;
pub mod capable;
pub mod cgroup;
pub mod containerd;
pub mod counter;
pub mod cri;
pub mod docker;
pub mod events;
pub mod host;
pub mod http;
pub mod kernel_memory;
pub mod lab;
pub mod likeness;
pub mod metrics;
pub mod own;
pub mod pace;
pub mod pods;
pub mod pty;
pub mod readme;
pub mod recording;
pub mod rootfs;
pub mod runc;
pub mod sandbox;
pub mod scratch;
pub mod screen;
pub mod services;
pub mod shell;
pub mod spec;
pub mod wait;
