//! The byte streams between host and guest: how they are opened, where HTTP/2 begins on them, and how they are served.

pub mod framed;
mod grpc;
pub mod link;
pub mod port;
mod serial;
pub mod serve;
pub mod sync;
mod tunnel;
mod vsock;
