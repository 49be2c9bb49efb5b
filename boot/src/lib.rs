//! The host side of altmap: disk images, every QEMU flag, the QMP client, the serial console and what `./x` does with
//! them. It gets the kernel as a path and never links it; the system tests use the same modules.
//!
//! From the bottom up:
//! - [`size`] and [`workspace`]: how sizes are written, where things lie.
//! - [`build`] calls cargo for the kernel, [`symbols`] makes the table its backtraces need, [`segment`] puts
//!   it into the kernel, [`image`] makes what boots.
//! - [`qemu`] turns a description of a machine into a QEMU process; [`emulator`] is which, [`firmware`] finds OVMF,
//!   [`accelerator`] tries KVM.
//! - [`qmp`] and [`serial`] talk to the running machine, [`guest`] is one that a program runs; [`ost`] puts the guest's ACPI answers into words.
//! - [`plug`], [`devices`], [`run`], [`demo`], [`stress`], [`suite`] and [`doctor`] are the commands; [`dice`] makes what is
//!   random repeatable.
// QEMU is asked to quit by a signal, and ended by a thread that does not own it.
#![feature(unix_send_signal, linux_pidfd)]

pub mod accelerator;
pub mod bench;
pub mod build;
pub mod demo;
pub mod devices;
pub mod dice;
pub mod doctor;
pub mod emulator;
mod feed;
pub mod firmware;
pub mod giving_up;
pub mod guest;
pub mod image;
pub mod ost;
pub mod plug;
mod pulse;
pub mod qemu;
pub mod qmp;
pub mod run;
pub mod segment;
pub mod serial;
pub mod size;
pub mod stress;
pub mod suite;
pub mod symbols;
pub mod workspace;
