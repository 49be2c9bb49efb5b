//! The first and only program of the Linux that `./x bench --linux` measures: altmap's console over Linux's files, so that
//! one program on the host drives both.
//!
//! It knows the few commands that the measurements need, spelled and answered as altmap does. What they cost is
//! counted outside.
#![forbid(unsafe_code)]

mod fill;
mod memory;
mod modules;

use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use fill::Fills;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

const PROMPT: &str = "altmap> ";

/// A refused command: one line, with the name of the error where the kernel gave one.
const ERRNOS: [(i32, &str); 6] =
    [(2, "ENOENT"), (11, "EAGAIN"), (12, "ENOMEM"), (16, "EBUSY"), (19, "ENODEV"), (22, "EINVAL")];

fn main() -> ! {
    // Where Linux did not bring us up properly there is nobody to tell but its console.
    if let Err(error) = serve() {
        println!("error: EIO: {error:#}");
    }
    // The last line leaves the serial port before the machine does.
    std::thread::sleep(Duration::from_millis(100));
    let refused = reboot(RebootCommand::PowerOff);
    panic!("no power-off: {refused:?}");
}

/// Answers commands for ever, or until `poweroff`.
fn serve() -> Result<()> {
    for (kind, directory) in [("proc", "/proc"), ("sysfs", "/sys")] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {directory}"))?;
        mount(kind, directory, kind, MountFlags::empty(), None).with_context(|| format!("cannot mount {directory}"))?;
    }
    memory::check_block_size()?;
    modules::load()?;
    print!("{}{PROMPT}", std::fs::read_to_string("/proc/version")?);
    std::io::stdout().flush()?;
    let mut fills = Fills::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("the console broke")?;
        if line.trim() == "poweroff" {
            break;
        }
        match answer(line.trim(), &mut fills) {
            Ok(text) => print!("{text}{PROMPT}"),
            Err(error) => print!("error: {}: {error:#}\n{PROMPT}", errno(&error)),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn answer(line: &str, fills: &mut Fills) -> Result<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        [] => Ok(String::new()),
        [state @ ("online_movable" | "offline"), blocks] => memory::set(state, blocks.parse()?).map(|()| String::new()),
        ["auto_online", policy] => memory::auto_online(policy).map(|()| String::new()),
        ["meminfo", "-J"] => Ok(format!("{}\n", memory::meminfo()?)),
        ["vmstat", "-J"] => Ok(format!("{}\n", memory::vmstat()?)),
        ["fill", size, ref options @ ..] if matches!(options, [] | ["--huge"]) => {
            Ok(format!("fill {}\n", fills.fill(size, !options.is_empty())?))
        }
        ["verify", id] => fills.verify(id).map(|()| format!("fill {id}: as written\n")),
        ["free", id] => fills.free(id).map(|()| String::new()),
        _ => anyhow::bail!("unknown command {line}"),
    }
}

fn errno(error: &anyhow::Error) -> &'static str {
    let number = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let known = ERRNOS.iter().find(|(known, _)| Some(*known) == number);
    known.map_or(if number.is_some() { "EIO" } else { "EINVAL" }, |(_, name)| name)
}
