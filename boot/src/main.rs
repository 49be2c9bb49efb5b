//! The host tool behind `./x`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use boot::accelerator::{Accelerator, Choice};
use boot::bench;
use boot::qemu::{Board, Debugger, Dimm, Machine, VirtioMem, Way};
use boot::qmp::Qmp;
use boot::size::{Bytes, gib, mib};
use boot::{demo, devices, doctor, giving_up, image, plug, run, stress, suite, workspace};
use clap::{Args, Parser, Subcommand};

/// altmap: a kernel whose whole point is memory hotplug
#[derive(Parser)]
#[command(name = "./x", bin_name = "./x")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build, boot, and put the console on this terminal
    Run(RunArgs),
    /// Build the disk images, and the ELF file that boots by PVH
    Image,
    /// Plug a memory module into the running machine and wait for the guest
    Plug(PlugArgs),
    /// Ask the guest to give a memory module back, and pull it
    Unplug(UnplugArgs),
    /// Change how much of a virtio-mem device the guest shall have, and wait until it has
    Resize(ResizeArgs),
    /// Show the memory devices of the running machine
    Devices(Target),
    /// A narrated tour without questions
    Demo(AcceleratorArgs),
    /// Run every test, or those whose names contain FILTER
    Test {
        /// Only tests whose names contain this
        filter: Option<String>,
    },
    /// Measure what things cost
    Bench(BenchArgs),
    /// Random work of all kinds in the guest, while memory modules come and go
    Stress(StressArgs),
    /// Say what is missing
    Doctor,
}

#[derive(Args)]
struct RunArgs {
    /// Boot memory, spread over the nodes
    #[arg(long, value_name = "SIZE", default_value_t = gib(1))]
    memory: Bytes,
    /// Slots for memory modules [default: 8, or none on a microvm]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=256))]
    slots: Option<u32>,
    /// How far memory may grow [default: 64G, or by 64G where there is more than 32G]
    #[arg(long, value_name = "SIZE")]
    maxmem: Option<Bytes>,
    /// Processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// NUMA nodes [default: 2, or 1 on a microvm or where memory is below 512M]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=128))]
    nodes: Option<u32>,
    /// The board that QEMU emulates
    #[arg(long, value_enum, default_value_t = Board::Q35)]
    machine: Board,
    /// Boot through UEFI instead of BIOS
    #[arg(long)]
    uefi: bool,
    /// Boot without a disk, as a PVH guest [always so on a microvm]
    #[arg(long)]
    pvh: bool,
    /// A memory module that is in from the start: SIZE[,node=N][,addr=A][,id=ID]
    #[arg(long = "dimm", value_name = "DIMM", value_parser = parse_dimm)]
    dimms: Vec<Dimm>,
    /// A device whose size can be changed: SIZE[,requested=SIZE][,node=N][,block=SIZE][,standby]
    #[arg(long = "virtio-mem", value_name = "DEVICE", value_parser = parse_virtio_mem)]
    virtio_mems: Vec<VirtioMem>,
    /// Kernel parameters, for example "loglevel=7 memhp_default_state=online_movable"
    #[arg(long = "param", value_name = "WORDS")]
    params: Vec<String>,
    /// Wait for a debugger before the first instruction
    #[arg(long)]
    gdb: bool,
    #[command(flatten)]
    accelerator: AcceleratorArgs,
    #[command(flatten)]
    target: Target,
    /// Boot this kernel instead of building one
    #[arg(long, value_name = "ELF")]
    kernel: Option<PathBuf>,
    /// Passed on to QEMU as they are
    #[arg(last = true, value_name = "QEMU ARGS")]
    extra: Vec<String>,
}

#[derive(Args)]
struct AcceleratorArgs {
    /// Do not use KVM even where it works
    #[arg(long, conflicts_with = "kvm")]
    tcg: bool,
    /// Use KVM even where it seems not to work
    #[arg(long)]
    kvm: bool,
}

#[derive(Args)]
struct Target {
    /// The QMP socket of the machine [default: target/altmap/qmp.sock]
    #[arg(long, value_name = "PATH")]
    qmp: Option<PathBuf>,
}

#[derive(Args)]
struct PlugArgs {
    /// A multiple of 2M
    size: Bytes,
    /// The module's NUMA node
    #[arg(long)]
    node: Option<u32>,
    /// Its name [default: dimmN in slot N, as the guest calls it]
    #[arg(long)]
    id: Option<String>,
    /// Its guest-physical address [default: the first that is free]
    #[arg(long, value_parser = parse_address)]
    addr: Option<u64>,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
struct UnplugArgs {
    /// As ./x devices lists it
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
struct ResizeArgs {
    /// As ./x devices lists it
    id: String,
    /// How much the guest shall have
    size: Bytes,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
struct BenchArgs {
    /// Measure Linux, too
    #[arg(long)]
    linux: bool,
    /// Tiny sizes: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Write BENCHMARKS.md from what this run and earlier ones measured
    #[arg(long)]
    write: bool,
    /// Where JSON and plots go [default: target/altmap/bench]
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// `host`, `guest` or `linux` chooses a part; other words choose rows and columns whose names contain them
    #[arg(value_name = "WORD")]
    words: Vec<String>,
}

#[derive(Args)]
struct StressArgs {
    /// How long
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// Repeat the choices of an earlier run [default: by the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Processors
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    #[command(flatten)]
    accelerator: AcceleratorArgs,
}

impl StressArgs {
    fn options(&self) -> Result<stress::Options> {
        let options = stress::Options::new(self.seconds, self.cpus);
        let seed = self.seed.unwrap_or(options.seed);
        Ok(stress::Options { seed, accelerator: self.accelerator.choose()?, ..options })
    }
}

impl BenchArgs {
    fn options(self) -> bench::Options {
        let options = bench::Options::new(&self.words, self.linux);
        let output = self.output.unwrap_or_else(|| options.output.clone());
        bench::Options { quick: self.quick, write: self.write, output, ..options }
    }
}

impl Target {
    fn path(&self) -> PathBuf {
        self.qmp.clone().unwrap_or_else(workspace::qmp_socket)
    }

    fn connect(&self) -> Result<Qmp> {
        Qmp::connect(&workspace::short(&self.path()))
    }
}

impl AcceleratorArgs {
    fn choose(&self) -> Result<Accelerator> {
        match (self.tcg, self.kvm) {
            (true, _) => Ok(Accelerator::Tcg),
            (_, true) => Ok(Accelerator::Kvm),
            _ => Ok(Choice::made()?.accelerator),
        }
    }
}

impl RunArgs {
    /// How far memory may grow when nobody says.
    fn room(&self) -> Bytes {
        const USUAL: Bytes = gib(64);
        if self.memory > gib(32) { Bytes(self.memory.0.saturating_add(USUAL.0)) } else { USUAL }
    }

    fn machine(&self) -> Result<Machine> {
        let is_microvm = self.machine == Board::Microvm;
        let nodes = if is_microvm || self.memory < mib(512) { 1 } else { 2 };
        let slots = if is_microvm { 0 } else { 8 };
        let standby = self.virtio_mems.iter().filter(|device| device.standby).count();
        if ![0, self.virtio_mems.len()].contains(&standby) {
            bail!("either all virtio-mem devices begin as standby memory or none; `virtio_mem NAME mode` changes one");
        }
        Ok(Machine {
            board: self.machine,
            way: self.way()?,
            memory: self.memory,
            maxmem: self.maxmem.unwrap_or_else(|| self.room()),
            slots: self.slots.unwrap_or(slots),
            cpus: self.cpus,
            nodes: self.nodes.unwrap_or(nodes),
            dimms: self.dimms.clone(),
            virtio_mems: self.virtio_mems.clone(),
            params: self.params(),
            debugger: if self.gdb { Debugger::WaitFor } else { Debugger::None },
            extra: self.extra.clone(),
        })
    }

    /// Those that are asked for, and what the devices need. The mode is one for all devices.
    fn params(&self) -> Vec<String> {
        let mut params = self.params.clone();
        if self.virtio_mems.iter().any(|device| device.standby) {
            params.insert(0, "virtio_mem.mode=standby".to_owned());
        }
        params
    }

    fn way(&self) -> Result<Way> {
        let is_pvh = self.pvh || self.machine == Board::Microvm;
        match (is_pvh, self.uefi) {
            (true, true) => bail!("a PVH guest, such as a microvm, does not boot through UEFI"),
            (true, false) => Ok(Way::Pvh),
            (false, true) => Ok(Way::Ovmf),
            (false, false) => Ok(Way::SeaBios),
        }
    }
}

fn parse_dimm(text: &str) -> Result<Dimm> {
    let mut parts = text.split(',');
    let size = parts.next().unwrap_or_default().parse()?;
    let mut dimm = Dimm { size, id: None, node: None, address: None };
    for part in parts {
        match part.split_once('=') {
            Some(("node", node)) => dimm.node = Some(node.parse()?),
            Some(("addr", address)) => dimm.address = Some(parse_address(address)?),
            Some(("id", id)) => dimm.id = Some(id.to_owned()),
            _ => bail!("`{part}` is none of node=N, addr=A, id=ID"),
        }
    }
    Ok(dimm)
}

fn parse_virtio_mem(text: &str) -> Result<VirtioMem> {
    let mut parts = text.split(',');
    let size = parts.next().unwrap_or_default().parse()?;
    let mut device = VirtioMem { size, requested: Bytes(0), node: None, block: None, standby: false };
    let mut requested = None;
    for part in parts {
        match part.split_once('=').unwrap_or((part, "")) {
            ("requested", size) => requested = Some(size.parse()?),
            ("node", node) => device.node = Some(node.parse()?),
            ("block", size) => device.block = Some(size.parse()?),
            ("standby", "") => device.standby = true,
            _ => bail!("`{part}` is none of requested=SIZE, node=N, block=SIZE, standby"),
        }
    }
    // What stands by may all be had, unless somebody says how much.
    let all = if device.standby { size } else { Bytes(0) };
    Ok(VirtioMem { requested: requested.unwrap_or(all), ..device })
}

/// An address is written in hexadecimal, or as a size is.
fn parse_address(text: &str) -> Result<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => Ok(u64::from_str_radix(&digits.replace('_', ""), 16)?),
        None => Ok(text.parse::<Bytes>()?.0),
    }
}

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{error:#}");
            match giving_up::reason() {
                // What failed first may be that nobody answers any more.
                Some(reason) if !error.contains(reason) => eprintln!("error: {reason}: {error}"),
                _ => eprintln!("error: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn act(command: Verb) -> Result<()> {
    match command {
        Verb::Run(args) => run_machine(&args),
        Verb::Image => {
            let images = image::up_to_date()?;
            for image in images.made() {
                println!("{}", workspace::short(image).display());
            }
            Ok(())
        }
        Verb::Plug(args) => {
            let dimm = Dimm { size: args.size, id: args.id, node: args.node, address: args.addr };
            report(plug::plug(&mut args.target.connect()?, &dimm, &mut note)?)
        }
        Verb::Unplug(args) => report(plug::unplug(&mut args.target.connect()?, &args.id, &mut note)?),
        Verb::Resize(args) => report(plug::resize(&mut args.target.connect()?, &args.id, args.size, &mut note)?),
        Verb::Devices(target) => {
            print!("{}", devices::table(&mut target.connect()?)?);
            Ok(())
        }
        Verb::Demo(args) => demo::run(args.choose()?),
        Verb::Test { filter } => suite::run(filter.as_deref()),
        Verb::Bench(args) => bench::run(&args.options()),
        Verb::Stress(args) => stress::run(&args.options()?),
        Verb::Doctor => diagnose(),
    }
}

fn run_machine(args: &RunArgs) -> Result<()> {
    let machine = args.machine()?;
    let images = match &args.kernel {
        Some(kernel) => image::of_kernel(kernel)?,
        None => image::up_to_date()?,
    };
    run::run(&machine, &images, args.accelerator.choose()?, &args.target.path())?.check()
}

fn note(text: &str) {
    println!("{text}");
}

fn report(verdict: plug::Verdict) -> Result<()> {
    println!("{}", verdict.into_result()?);
    Ok(())
}

fn diagnose() -> Result<()> {
    let findings = doctor::findings();
    for doctor::Finding { what, state } in &findings {
        let text = match state {
            Ok(text) | Err(text) => text,
        };
        println!("{what:<12} {text}");
    }
    for (what, text) in doctor::extras() {
        println!("{what:<12} {text}");
    }
    if findings.iter().any(|finding| finding.state.is_err()) {
        bail!("something is missing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(words: &[&str]) -> Result<Machine> {
        let cli = Cli::try_parse_from([&["./x", "run"], words].concat()).expect("parses");
        let Verb::Run(args) = cli.command else { panic!("not run") };
        args.machine()
    }

    fn parsed(words: &[&str]) -> Machine {
        described(words).expect("a machine")
    }

    #[test]
    fn the_command_line_describes_the_machine() {
        let machine = parsed(&["--memory", "2G", "--slots", "16", "--maxmem", "16G", "--machine", "pc", "--uefi"]);
        assert_eq!((machine.memory, machine.slots, machine.maxmem), (gib(2), 16, gib(16)));
        assert_eq!((machine.board, machine.way), (Board::Pc, Way::Ovmf));
    }

    #[test]
    fn a_microvm_boots_by_pvh_and_has_neither_slots_nor_a_second_node() {
        let microvm = parsed(&["--machine", "microvm"]);
        assert_eq!((microvm.way, microvm.slots, microvm.nodes), (Way::Pvh, 0, 1));
        let q35 = parsed(&["--pvh"]);
        assert_eq!((q35.board, q35.way, q35.slots, q35.nodes), (Board::Q35, Way::Pvh, 8, 2));
    }

    #[test]
    fn pvh_and_uefi_exclude_each_other_in_one_sentence() {
        for words in [["--uefi", "--pvh"].as_slice(), &["--uefi", "--machine", "microvm"]] {
            let error = described(words).expect_err("refused").to_string();
            assert_eq!(error, "a PVH guest, such as a microvm, does not boot through UEFI");
        }
    }

    #[test]
    fn there_is_room_to_grow_however_much_there_is() {
        assert_eq!(parsed(&["--memory", "32G"]).maxmem, gib(64));
        assert_eq!(parsed(&["--memory", "130G"]).maxmem, gib(194));
    }

    #[test]
    fn words_after_two_dashes_are_qemus() {
        assert_eq!(parsed(&["--", "-d", "int"]).extra, ["-d", "int"]);
    }

    #[test]
    fn a_small_machine_has_one_node_unless_told() {
        assert_eq!(parsed(&[]).nodes, 2);
        assert_eq!(parsed(&["--memory", "128M"]).nodes, 1);
        assert_eq!(parsed(&["--memory", "128M", "--nodes", "2"]).nodes, 2);
    }

    #[test]
    fn a_module_is_a_size_and_what_is_known_about_it() {
        let dimm = parse_dimm("1.5G,node=1,addr=0x1_8000_0000,id=d7").expect("parses");
        let expected = Dimm { size: mib(1536), id: Some("d7".into()), node: Some(1), address: Some(0x1_8000_0000) };
        assert_eq!(dimm, expected);
        assert!(parse_dimm("").is_err() && parse_dimm("1G,slot=1").is_err() && parse_dimm("1G,node=x").is_err());
    }

    #[test]
    fn a_device_that_grows_is_a_size_and_what_is_known_about_it() {
        let device = parse_virtio_mem("8G,requested=1G,node=1,block=4M").expect("parses");
        let expected =
            VirtioMem { size: gib(8), requested: gib(1), node: Some(1), block: Some(mib(4)), standby: false };
        assert_eq!(device, expected);
        assert_eq!(parse_virtio_mem("1G").expect("parses").requested, Bytes(0));
        let standby = parse_virtio_mem("4G,standby").expect("parses");
        assert_eq!((standby.requested, standby.standby), (gib(4), true));
        assert_eq!(parse_virtio_mem("4G,standby,requested=1G").expect("parses").requested, gib(1));
        assert!(parse_virtio_mem("1G,slot=1").is_err() && parse_virtio_mem("1G,requested=x").is_err());
    }

    #[test]
    fn addresses_are_hexadecimal_or_sizes() {
        assert_eq!(parse_address("0x1_0000_0000").expect("parses"), 1 << 32);
        assert_eq!(parse_address("4G").expect("parses"), 1 << 32);
        assert!(parse_address("0xzz").is_err());
    }

    #[test]
    fn the_grammar_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
