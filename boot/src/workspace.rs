//! Where things lie in the workspace.

use std::path::{Path, PathBuf};

/// The directory of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// Where the host tool leaves what it makes: images, sockets.
pub fn artifacts() -> PathBuf {
    root().join("target/altmap")
}

/// The QMP socket of `./x run` unless `--qmp` says otherwise.
pub fn qmp_socket() -> PathBuf {
    artifacts().join("qmp.sock")
}

/// The shortest way to write `path` for somebody standing in the current directory: a Unix socket's name must fit into
/// 107 bytes, and a command line is for reading.
pub fn short(path: &Path) -> PathBuf {
    let relative = std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    relative.unwrap_or_else(|| path.to_path_buf())
}
