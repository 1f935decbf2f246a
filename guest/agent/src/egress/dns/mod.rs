//! The guest's DNS server: names become synthetic addresses, so that the agent knows what a program that connects has asked for.

mod answer;
mod question;
mod server;

pub use server::Server;
