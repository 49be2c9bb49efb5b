//! What boots: the kernel, stripped and with its symbol table inside, by itself and on disks for BIOS and for UEFI.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use bootloader::{BootConfig, DiskImageBuilder};

use crate::build::{self, Profile};
use crate::{segment, symbols, workspace};

/// Raw disks that boot, an ELF that PVH loaders boot, and the kernel with symbols that they were made from.
#[derive(Clone, Debug)]
pub struct Images {
    pub bios: PathBuf,
    pub uefi: PathBuf,
    pub elf: PathBuf,
    pub kernel: PathBuf,
}

impl Images {
    /// What is made of the kernel.
    pub fn made(&self) -> [&Path; 3] {
        [&self.bios, &self.uefi, &self.elf]
    }
}

/// Builds the kernel and makes its images where they are not the newest already.
pub fn up_to_date() -> Result<Images> {
    of_kernel(&build::kernel(Profile::Release)?)
}

/// The same with the kernel's assertions.
pub fn checked() -> Result<Images> {
    let kernel = build::kernel(Profile::Checked)?;
    in_directory(&workspace::artifacts().join(Profile::Checked.name()), &kernel)
}

/// The images of `kernel`, made where they are not the newest already.
pub fn of_kernel(kernel: &Path) -> Result<Images> {
    in_directory(&workspace::artifacts(), kernel)
}

fn in_directory(directory: &Path, kernel: &Path) -> Result<Images> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let images = Images {
        bios: directory.join("bios.img"),
        uefi: directory.join("uefi.img"),
        elf: directory.join("altmap.elf"),
        kernel: kernel.to_path_buf(),
    };
    let elf = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let stamp_file = directory.join("images.stamp");
    let stamp = stamp(&elf);
    let fresh = fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp);
    if !fresh || images.made().iter().any(|image| !image.exists()) {
        make(&images, &elf, directory)?;
        fs::write(&stamp_file, stamp).context("cannot write the stamp of the images")?;
    }
    Ok(images)
}

/// What the images depend on: the kernel, and how they are made.
fn stamp(elf: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    elf.hash(&mut hasher);
    (include_str!("image.rs"), include_str!("segment.rs"), include_str!("symbols.rs")).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn make(images: &Images, elf: &[u8], directory: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(directory).context("cannot make a directory for the images")?;
    let in_work = |name: &str| work.path().join(name);

    let bootable = in_work("altmap.elf");
    strip(&images.kernel, &bootable)?;
    let stripped = fs::read(&bootable).context("cannot read the stripped kernel")?;
    fs::write(&bootable, segment::with_symbols(stripped, &symbols::table(elf)?)?).context("cannot write the kernel")?;

    let mut builder = DiskImageBuilder::new(bootable);
    let mut config = BootConfig::default();
    config.serial_logging = false;
    config.frame_buffer_logging = false;
    builder.set_boot_config(&config);

    builder.create_bios_image(&in_work("bios.img")).context("cannot make the BIOS image")?;
    builder.create_uefi_image(&in_work("uefi.img")).context("cannot make the UEFI image")?;
    // A machine that runs from the old image keeps it: the file is replaced, never written over.
    for image in images.made() {
        let name = image.file_name().expect("the images are named above");
        fs::rename(work.path().join(name), image).with_context(|| format!("cannot replace {}", image.display()))?;
    }
    Ok(())
}

/// The whole file stays resident in the guest, and the BIOS reads it slowly: symbols and line tables stay here.
fn strip(kernel: &Path, stripped: &Path) -> Result<()> {
    let status = Command::new(build::llvm_tool("llvm-strip")?)
        .args(["--strip-all", "-o"])
        .args([stripped, kernel])
        .status()
        .context("llvm-strip does not start")?;
    if !status.success() {
        bail!("llvm-strip cannot strip {}", kernel.display());
    }
    Ok(())
}
