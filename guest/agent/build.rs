//! Generates the gRPC services from spec/agent.proto; protox compiles it, so no protoc is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../spec/agent.proto");
    let descriptors = protox::compile(["agent.proto"], ["../../spec"])?;
    tonic_prost_build::configure().bytes(".").build_client(true).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
