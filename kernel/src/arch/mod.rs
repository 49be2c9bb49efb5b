//! The processor and what comes with it: instructions, descriptor tables, interrupts, ports.
//!
//! Everything outside this folder uses the names exported here and would not change on another CPU.

mod x86_64;

pub(crate) use self::x86_64::*;
