//! `./x stress`: the kernel's own `stress`, while memory modules come and go and a virtio-mem device changes its size from outside at
//! random, all from one seed.

mod modules;
mod resizes;
mod verdict;

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::accelerator::Accelerator;
use crate::dice::Dice;
use crate::guest::Guest;
use crate::image;
use crate::qemu::Machine;
use crate::qmp::Qmp;
use crate::size::gib;
use crate::workspace;
use modules::{Counts, Modules};
use verdict::Totals;

/// From QEMU's start to the prompt, on a busy machine without virtualization.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// The guest puts everything back when the time is over.
const PUT_BACK_LIMIT: Duration = Duration::from_secs(300);

/// A shell that is still usable answers within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What goes back by itself has gone back within this.
const SETTLED: Duration = Duration::from_secs(10);

/// A guest that was told to power off has this long.
const POWER_OFF: Duration = Duration::from_secs(60);

/// From one line about the progress to the next.
const PROGRESS: Duration = Duration::from_secs(5);

/// What shall be done.
#[derive(Clone, Debug)]
pub struct Options {
    pub seconds: u64,
    /// Everything random follows from it.
    pub seed: u64,
    pub cpus: u32,
    pub accelerator: Accelerator,
    /// The directory for the console's text and the report.
    pub output: PathBuf,
}

impl Options {
    /// For so long, with a seed that nobody chose.
    pub fn new(seconds: u64, cpus: u32) -> Self {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            seconds,
            // Short enough to be typed again.
            seed: u64::from(since.subsec_nanos() & 0xff_ffff),
            cpus,
            accelerator: Accelerator::best(),
            output: workspace::artifacts().join("stress"),
        }
    }
}

/// Boots a machine, stresses it, and says in one line how it went.
///
/// # Errors
/// Anything was not as it must be; the error names the seed and the file with what the guest said.
pub fn run(options: &Options) -> Result<()> {
    println!("seed {}", options.seed);
    let images = image::up_to_date()?;
    fs::create_dir_all(&options.output).with_context(|| format!("cannot make {}", options.output.display()))?;
    let machine = Machine {
        memory: gib(2),
        maxmem: gib(32),
        slots: 16,
        cpus: options.cpus,
        nodes: 2,
        virtio_mems: vec![resizes::DEVICE],
        ..Machine::default()
    };
    let guest = Guest::start(&machine, &images, options.accelerator, None)?;
    let mut session = Session::new(guest, options)?;
    let result = session.run();
    let console = options.output.join("console.log");
    session.guest.console.wait_closed(Duration::from_secs(1));
    fs::write(&console, session.guest.console.log()).with_context(|| format!("cannot write {}", console.display()))?;
    let report = result.with_context(|| {
        let console = workspace::short(&console);
        format!("seed {} failed; what the guest said is in {}", options.seed, console.display())
    })?;
    let file = options.output.join("report.json");
    fs::write(&file, format!("{report:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}", verdict::summary(&report));
    Ok(())
}

/// A machine under stress.
struct Session<'a> {
    guest: Guest,
    qmp: Qmp,
    options: &'a Options,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
}

impl<'a> Session<'a> {
    fn new(guest: Guest, options: &'a Options) -> Result<Self> {
        let qmp = guest.connect_qmp()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for signals")?;
        }
        Ok(Self { guest, qmp, options, stop })
    }

    /// From boot to power-off; what there is to report.
    fn run(&mut self) -> Result<Value> {
        let deadline = Instant::now() + BOOT_LIMIT;
        self.guest.console.expect_prompt(deadline).context("the machine did not boot")?;
        let before = self.totals()?;
        let job = self.start_job()?;
        let (counts, resizes) = self.change_memory(job)?;
        let limit = PUT_BACK_LIMIT + Duration::from_secs(self.options.seconds);
        self.guest.console.command_within(&format!("wait {job}"), limit).context("the guest's own stress")?;
        Modules::new(&mut self.qmp).unplug_all()?;
        resizes::shrink_to_nothing(&mut self.qmp)?;
        self.guest.console.command("memcheck")?;
        self.compare(&before)?;
        verdict::check_log(&self.guest.console.log())?;
        let guest = verdict::guest_report(&self.guest.console.log())?;
        self.power_off()?;
        let Options { seconds, seed, cpus, .. } = self.options;
        let modules = counts.to_json();
        Ok(json!({
            "seed": seed, "seconds": seconds, "cpus": cpus, "modules": modules, "resizes": resizes, "guest": guest
        }))
    }

    /// Stacks of tasks that have ended are given back a moment later.
    fn compare(&mut self, before: &Totals) -> Result<()> {
        let deadline = Instant::now() + SETTLED;
        loop {
            match self.totals()?.compare(before) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                verdict => return verdict,
            }
        }
    }

    fn totals(&mut self) -> Result<Totals> {
        Totals::of(&self.guest.console.json("meminfo")?)
    }

    /// Starts the guest's part beside its prompt; the number of the job.
    fn start_job(&mut self) -> Result<u64> {
        let Options { seconds, seed, .. } = self.options;
        let output = self.guest.console.command(&format!("stress {seconds} --seed {seed} -J &"))?;
        let number = output.lines().find_map(|line| line.strip_prefix("job ")?.trim().parse().ok());
        number.with_context(|| format!("no job was started: {output}"))
    }

    /// Plugs, unplugs and resizes until the time is over or the guest has failed; how often which of that.
    fn change_memory(&mut self, job: u64) -> Result<(Counts, u64)> {
        let mut dice = Dice::new(self.options.seed);
        let (mut counts, mut resizes) = (Counts::default(), 0);
        let begun = Instant::now();
        let end = begun + Duration::from_secs(self.options.seconds);
        let mut told = begun;
        while Instant::now() < end && self.is_running(job)? {
            ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
            std::thread::sleep(Duration::from_millis(dice.below(1000)));
            if dice.below(2) == 0 {
                resizes::change(&mut self.qmp, &mut dice)?;
                resizes += 1;
            } else {
                Modules::new(&mut self.qmp).change(&mut dice, &mut counts)?;
            }
            if told.elapsed() >= PROGRESS && std::io::stderr().is_terminal() {
                told = Instant::now();
                eprintln!("{:>5} s: {counts}, {resizes} resizes", begun.elapsed().as_secs());
            }
        }
        Ok((counts, resizes))
    }

    /// Whether the guest is still at it; asked through the shell, which must answer.
    fn is_running(&mut self, job: u64) -> Result<bool> {
        let answer = self.guest.console.command_within("jobs -J", ANSWER_LIMIT)?;
        let jobs: Value = serde_json::from_str(answer.trim()).with_context(|| format!("`jobs -J` printed {answer}"))?;
        let ours = jobs["jobs"].as_array().and_then(|jobs| jobs.iter().find(|entry| entry["job"] == job));
        Ok(ours.with_context(|| format!("job {job} is gone: {answer}"))?["state"] == "running")
    }

    fn power_off(&mut self) -> Result<()> {
        self.guest.console.submit("poweroff")?;
        match self.guest.qemu.wait(POWER_OFF) {
            Some(exit) => exit.check(),
            None => bail!("the machine does not power off"),
        }
    }
}
