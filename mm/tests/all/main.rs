//! What is claimed of the subsystem as a whole, a module for each subject, all on one machine made of tables.

mod machine;

mod allocator;
mod beside;
mod cpus;
mod device;
mod empty_boot;
mod faulty;
mod interleavings;
mod kernel_memory;
mod mixed;
mod model;
mod moving;
mod moving_at_once;
mod pieces;
mod poison;
mod policies;
mod readers;
mod relabel;
mod standby;
mod stress;
mod threads;
mod trial;
mod untouched;
mod verbs;
