//! The Linux to compare with: Debian's kernel, unpacked and not installed, and our own first program for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cpio::NewcBuilder;

use crate::qemu::Linux;
use crate::{build, workspace};

/// Depends on the newest kernel of this release.
const META_PACKAGE: &str = "linux-image-amd64";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the kernel is called among the files that are kept of it.
const KERNEL: &str = "vmlinuz";

/// The drivers of virtio-mem, which this Linux has as modules, each after those that it needs.
const MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_mem"];

/// What QEMU boots, and what it is called.
pub(super) struct Debian {
    pub linux: Linux,
    /// As in `Linux 6.1`.
    pub name: String,
    /// The package and its version.
    pub package: String,
}

/// Fetches and builds what is not there yet.
///
/// # Errors
/// This is no Debian, or its package lists or servers are out of reach.
pub(super) fn get() -> Result<Debian> {
    let directory = workspace::artifacts().join("peer");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let package = Package::newest()?;
    let files = directory.join(&package.release);
    if !files.exists() {
        fetch(&package, &directory)?;
    }
    let initramfs = directory.join("initramfs.cpio");
    pack(&first_program()?, &files, &initramfs)?;
    let version: Vec<_> = package.release.split('.').take(2).collect();
    Ok(Debian {
        linux: Linux { kernel: files.join(KERNEL), initramfs },
        name: format!("Linux {}", version.join(".")),
        package: format!("{} {}", package.name, package.version),
    })
}

/// A kernel's package.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    /// As `uname -r` says it.
    release: String,
}

impl Package {
    fn newest() -> Result<Self> {
        let text = output(Command::new("apt-cache").args(["show", META_PACKAGE]))
            .context("Linux to compare with is a package of Debian, which this system's apt does not know")?;
        Self::from_description(&text)
            .with_context(|| format!("{META_PACKAGE} depends on no kernel; try apt-get update"))
    }

    /// From the line `Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)` of the newest meta-package, which comes first.
    fn from_description(text: &str) -> Option<Self> {
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "))?;
        let of_kernel = depends.split(", ").find(|package| package.starts_with("linux-image-"))?;
        let (name, version) = of_kernel.split_once(" (= ")?;
        let release = name.strip_prefix("linux-image-")?;
        let version = version.trim_end_matches(')');
        Some(Self { name: name.to_owned(), version: version.to_owned(), release: release.to_owned() })
    }
}

/// Downloads the package and keeps the kernel of it, and the modules.
fn fetch(package: &Package, directory: &Path) -> Result<()> {
    eprintln!("fetching {} {}", package.name, package.version);
    let work = tempfile::tempdir_in(directory).context("cannot make a directory for the package")?;
    let wanted = format!("{}={}", package.name, package.version);
    // apt's own user cannot write here, and need not.
    let download = ["-q", "-o", "APT::Sandbox::User=root", "download", &wanted];
    output(Command::new("apt-get").args(download).current_dir(work.path())).with_context(|| {
        format!("cannot download {wanted}; is there a network, and are the lists new (apt-get update)?")
    })?;
    let mut entries = fs::read_dir(work.path()).context("cannot see what was downloaded")?;
    let archive = entries.next().context("nothing was downloaded")??.path();
    let unpacked = work.path().join("unpacked");
    output(Command::new("dpkg-deb").arg("-x").args([&archive, &unpacked])).context("cannot unpack it")?;
    let kept = work.path().join("kept");
    fs::create_dir(&kept).context("cannot make a directory for what is kept")?;
    let Package { release, .. } = package;
    let kernel = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    fs::rename(kernel, kept.join(KERNEL)).context("there is no kernel in it")?;
    let drivers = unpacked.join("lib/modules").join(release).join("kernel/drivers/virtio");
    MODULES.into_iter().try_for_each(|module| keep_module(module, &drivers, &kept))?;
    fs::rename(kept, directory.join(release)).context("cannot keep it")
}

/// Moves a module; a newer Debian has them compressed.
fn keep_module(name: &str, from: &Path, to: &Path) -> Result<()> {
    let file = file_of(name);
    let compressed = from.join(&file).with_added_extension("xz");
    if compressed.exists() {
        output(Command::new("xz").arg("--decompress").arg(&compressed))?;
    }
    fs::rename(from.join(&file), to.join(&file)).with_context(|| format!("there is no module {name} in it"))
}

fn file_of(module: &str) -> String {
    format!("{module}.ko")
}

/// Builds our first program, which needs nothing that Linux does not have by itself.
fn first_program() -> Result<PathBuf> {
    let status = build::cargo()
        .args(["build", "--quiet", "--package", "linux-init", "--release", "--target", TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("the program for Linux does not build");
    }
    Ok(workspace::root().join("target").join(TARGET).join("release/linux-init"))
}

/// Makes an archive in which `program` is what Linux starts first, and the modules in `files` have names in their order.
fn pack(program: &Path, files: &Path, archive: &Path) -> Result<()> {
    let mut inputs = vec![("init".to_owned(), program.to_owned())];
    let modules = MODULES.into_iter().map(file_of).enumerate();
    inputs.extend(modules.map(|(number, file)| (format!("{number}-{file}"), files.join(file))));
    let mut entries = Vec::new();
    for (name, path) in inputs {
        let input = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        entries.push((NewcBuilder::new(&name).mode(0o100_755), input));
    }
    let output = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    cpio::write_cpio(entries.into_iter(), output).context("cannot pack the program for Linux")?;
    Ok(())
}

/// What a command prints; an error with its own words where it fails.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{program} does not start"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_what_the_first_meta_package_depends_on() {
        let text = "Package: linux-image-amd64\nVersion: 6.1.192-2\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n\n\
                    Package: linux-image-amd64\nDepends: linux-image-6.1.0-50-amd64 (= 6.1.176-1)\n";
        let package = Package::from_description(text).expect("a package");
        assert_eq!(package.name, "linux-image-6.1.0-56-amd64");
        assert_eq!((package.version.as_str(), package.release.as_str()), ("6.1.192-2", "6.1.0-56-amd64"));
        assert_eq!(Package::from_description("Package: linux-image-amd64\n"), None);
    }

    #[test]
    fn a_command_that_fails_says_so_in_its_own_words() {
        let error = output(Command::new("sh").args(["-c", "echo no network >&2; exit 100"])).expect_err("it failed");
        assert_eq!(error.to_string(), "sh: no network");
        assert!(output(&mut Command::new("/nonexistent/apt")).is_err());
    }

    #[test]
    fn linux_finds_the_program_in_the_archive_and_the_modules_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let (program, archive) = (directory.path().join("linux-init"), directory.path().join("cpio"));
        fs::write(&program, b"\x7fELF").expect("written");
        for module in MODULES {
            fs::write(directory.path().join(file_of(module)), module).expect("written");
        }
        pack(&program, directory.path(), &archive).expect("packed");
        let mut file = File::open(&archive).expect("there");
        let mut names = Vec::new();
        loop {
            let reader = cpio::NewcReader::new(file).expect("an archive");
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            file = reader.finish().expect("whole");
        }
        assert_eq!(names[0], ("init".to_owned(), 0o100_755));
        let modules: Vec<_> = names[1..].iter().map(|(name, _)| name.as_str()).collect();
        assert!(modules.is_sorted() && modules.len() == MODULES.len(), "{modules:?}");
        assert_eq!((modules[0], modules[5]), ("0-virtio_ring.ko", "5-virtio_mem.ko"));
    }

    #[test]
    fn a_compressed_module_is_kept_as_linux_loads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        for path in [&from, &to] {
            fs::create_dir(path).expect("made");
        }
        fs::write(from.join("virtio.ko"), b"\x7fELF").expect("written");
        output(Command::new("xz").arg(from.join("virtio.ko"))).expect("compressed");
        fs::write(from.join("virtio_mem.ko"), b"\x7fELF").expect("written");
        for module in ["virtio", "virtio_mem"] {
            keep_module(module, &from, &to).expect(module);
            assert_eq!(fs::read(to.join(file_of(module))).expect(module), b"\x7fELF");
        }
        assert!(keep_module("virtio_rtc", &from, &to).is_err());
    }
}
