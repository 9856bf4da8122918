//! Compiles the `.proto` files with protox, so no `protoc` is needed on the machine.

use std::{env, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let public = ["tikr/v1/tikr.proto", "barline/v1/barline.proto"];
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Reflection tells what the ports serve; the admin service is not among it.
    fs::write(out.join("descriptors.bin"), protox::compile(public, ["proto"])?.encode_to_vec())?;
    let all = public.into_iter().chain(["barline/v1/admin.proto"]);
    tonic_prost_build::configure().compile_fds(protox::compile(all, ["proto"])?)?;
    Ok(())
}
