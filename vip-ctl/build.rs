//! placeholder until merge
fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::copy("../target/bpf/vip-ebpf.o", format!("{out}/vip-ebpf.o")).unwrap();
    println!("cargo::rerun-if-changed=../target/bpf/vip-ebpf.o");
}
