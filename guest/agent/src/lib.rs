//! The guest agent: PID 1 of every InstaVM microVM, and the services of `spec/agent.proto`.

pub mod accounts;
pub mod boot;
pub mod channel;
pub mod egress;
pub mod error;
pub mod exec;
pub mod files;
pub mod identity;
pub mod processors;
pub mod pty;
pub mod python;
pub mod reaper;
mod relay;
pub mod services;
pub mod stats;

/// Generated from `spec/agent.proto`.
#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("instavm.agent.v1");
}
