//! The programs, one file per topic. Which of them run, and where, is the agent's attach table.

mod calls;
mod calls_over;
mod capability;
mod cgroup;
mod limits;
mod namespace;
mod process;
mod root;
mod sweep;
