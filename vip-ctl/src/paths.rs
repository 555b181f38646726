//! Where a node keeps its files; the environment can move them, so that several
//! nodes fit on one machine for a test.

use std::path::PathBuf;

/// The directories of one node.
#[derive(Clone, Debug, clap::Args)]
pub struct Paths {
    /// Where programs, links and maps are pinned (a BPF file system).
    #[arg(long, env = "VIP_BPF_DIR", default_value = "/sys/fs/bpf/vip", global = true, value_name = "DIR")]
    pub bpf_dir: PathBuf,
    /// Where the agent's socket, the lock and the saved host state are.
    #[arg(long, env = "VIP_RUN_DIR", default_value = "/run/vip", global = true, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Where the agent keeps what outlives a boot: epochs, standby, the membership.
    #[arg(long, env = "VIP_STATE_DIR", default_value = "/var/lib/vip", global = true, value_name = "DIR")]
    pub state_dir: PathBuf,
}

impl Paths {
    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    /// The agent's socket for HTTP.
    #[must_use]
    pub fn http_socket(&self) -> PathBuf {
        self.run_dir.join("http.sock")
    }

    /// The lock that makes its owner the only writer of this node's leases.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join("lock")
    }
}
