//! One run of a command: the words it got, where its output goes, and whether it shall stop.

use super::arguments::Arguments;
use super::failure::Failure;
use super::json;
use crate::{task, time};
use alloc::string::String;
use core::fmt;
use mm::machine::{Pace, Stop};
use serde::Serialize;

/// Where the output of a command goes.
pub(crate) trait Sink {
    /// Takes whole lines.
    fn write(&mut self, lines: &str);
}

/// What a command works with.
pub(crate) struct Call<'a> {
    pub(crate) arguments: &'a Arguments,
    sink: &'a mut dyn Sink,
}

impl<'a> Call<'a> {
    pub(crate) fn new(arguments: &'a Arguments, sink: &'a mut dyn Sink) -> Self {
        Self { arguments, sink }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        self.sink.write(&alloc::format!("{line}\n"));
    }

    /// Prints a text that ends its own lines.
    pub(crate) fn text(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            self.sink.write(line);
        }
    }

    /// Prints a report: as JSON if `-J` was given, else as `people` shows it.
    pub(crate) fn show<R: Serialize>(&mut self, report: &R, people: impl FnOnce(&R) -> String) {
        if self.arguments.has("-J") {
            self.line(json::line(report));
        } else {
            self.text(&people(report));
        }
    }
}

/// Between the steps of a long loop: lets others run, and says whether to go on.
pub(crate) fn breathe() -> Result<(), Failure> {
    task::yield_now();
    if task::cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
}

/// Paces an operation of the memory subsystem: it stops when the task that runs it is cancelled, or its time is over.
pub(crate) struct TaskPace {
    deadline_ns: Option<u64>,
}

impl TaskPace {
    /// As long as it takes.
    pub(crate) const fn untimed() -> Self {
        Self { deadline_ns: None }
    }

    /// Until a moment of the clock.
    pub(crate) fn until(deadline_ns: u64) -> Self {
        Self { deadline_ns: Some(deadline_ns) }
    }
}

impl Pace for TaskPace {
    fn pause(&mut self) -> Result<(), Stop> {
        task::yield_now();
        if task::cancelled() {
            return Err(Stop::Cancelled);
        }
        match self.deadline_ns {
            Some(deadline) if time::now_ns() > deadline => Err(Stop::Deadline),
            _ => Ok(()),
        }
    }
}
