//! What tasks and locks take from the language: the model in `kernel/model` compiles the same files with a `shim` of its own,
//! whose atomics are those of a model checker.
#![deny(unsafe_code)]

pub(crate) use core::{hint, sync::atomic};
