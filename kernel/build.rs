//! Links the kernel by `kernel.ld` where it is built for bare metal; on the host it is an ordinary program.

fn main() {
    println!("cargo::rerun-if-changed=kernel.ld");
    let on_bare_metal = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|name| name == "none");
    if on_bare_metal {
        let directory = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
        println!("cargo::rustc-link-arg-bins=-T{directory}/kernel.ld");
    }
}
