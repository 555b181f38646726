//! The `vip-ctl` binary; everything is in the library.

fn main() -> std::process::ExitCode {
    vip_ctl::cli::main()
}
