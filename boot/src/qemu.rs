//! From the description of a machine to a QEMU process. Every QEMU flag of the project is in this file.

use std::fmt;
use std::fs;
use std::os::linux::process::CommandExt;
use std::os::unix::process::ChildExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::SIGTERM;
use tempfile::TempDir;

use crate::accelerator::Accelerator;
use crate::emulator;
use crate::firmware::{self, Ovmf};
use crate::giving_up::{self, Told, Watch};
use crate::image::Images;
use crate::pulse;
use crate::size::{Bytes, gib};

/// Turns a byte written to the port into QEMU's exit status, `2 * byte + 1`. By its name `-set` reaches it.
pub const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4,id=debug-exit";

/// Room to grow for which 40 address bits are enough, whatever else lies there.
const FITS_40_BITS: Bytes = gib(512);
/// The same for 46 bits.
const FITS_46_BITS: Bytes = gib(32 << 10);

/// More memory than this a host may refuse to set aside, though the guest uses little of it.
const READILY_PROMISED: Bytes = gib(4);

/// A QEMU that was told to quit has this long.
pub(crate) const QUIT: Duration = Duration::from_secs(1);

/// A machine to boot the kernel on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub board: Board,
    pub way: Way,
    /// Boot memory, spread evenly over the nodes.
    pub memory: Bytes,
    pub maxmem: Bytes,
    pub slots: u32,
    pub cpus: u32,
    pub nodes: u32,
    /// Cold-plugged.
    pub dimms: Vec<Dimm>,
    /// Devices whose size can be changed while the machine runs.
    pub virtio_mems: Vec<VirtioMem>,
    /// Kernel parameters.
    pub params: Vec<String>,
    pub debugger: Debugger,
    /// Appended to QEMU's command line as they are.
    pub extra: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            board: Board::Q35,
            way: Way::SeaBios,
            memory: gib(1),
            maxmem: gib(64),
            slots: 8,
            cpus: 2,
            nodes: 1,
            dimms: Vec::new(),
            virtio_mems: Vec::new(),
            params: Vec::new(),
            debugger: Debugger::None,
            extra: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    Q35,
    Pc,
    /// Without PCI, without slots for memory modules, and with one node only. It boots by PVH.
    Microvm,
}

/// How the kernel gets into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a disk, by the BIOS.
    SeaBios,
    /// From a disk, by UEFI.
    Ovmf,
    /// QEMU loads the ELF file, and what firmware there is enters it as a PVH guest.
    Pvh,
}

/// Whether the machine waits for a debugger before its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugger {
    None,
    WaitFor,
}

/// A memory module. What is left out, QEMU chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimm {
    pub size: Bytes,
    pub id: Option<String>,
    pub node: Option<u32>,
    pub address: Option<u64>,
}

/// A virtio-mem device. What is left out, QEMU chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioMem {
    /// The most that it can be.
    pub size: Bytes,
    /// How much of it the guest shall have at first.
    pub requested: Bytes,
    pub node: Option<u32>,
    /// In which pieces it comes and goes.
    pub block: Option<Bytes>,
}

/// Where the first serial port ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serial {
    /// On our terminal, together with QEMU's own keys: Ctrl-A X, Ctrl-A H.
    Terminal,
    /// On a Unix socket that somebody listens on already.
    Socket(PathBuf),
    /// Nowhere: it is only tried whether the machine runs.
    Nowhere,
}

/// What a machine boots.
#[derive(Clone, Copy, Debug)]
pub enum Software<'a> {
    Altmap(&'a Images),
    Linux(&'a Linux),
}

/// A Linux that QEMU itself loads, from BIOS only. The machine's parameters are its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

impl<'a> From<&'a Images> for Software<'a> {
    fn from(images: &'a Images) -> Self {
        Self::Altmap(images)
    }
}

/// Where the software comes from in one run of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk(PathBuf),
    Elf(PathBuf),
    Linux(Linux),
}

/// The files and sockets of one run of a machine.
#[derive(Clone, Debug)]
pub struct Wiring {
    pub medium: Medium,
    /// The firmware's code, and this run's own copy of its variables.
    pub ovmf: Option<Ovmf>,
    pub serial: Serial,
    pub qmp: PathBuf,
    pub accelerator: Accelerator,
}

/// A QEMU that runs; it ends with this value.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    watch: Watch,
    /// As somebody would type it.
    pub command_line: String,
    _variables: Option<TempDir>,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest left through the debug exit and was content.
    Success,
    /// The guest left through the debug exit and was not.
    Failure,
    /// Powered off, or somebody told QEMU to quit.
    PoweredOff,
    /// QEMU could not run the guest any further.
    GivenUp,
    /// QEMU itself failed or was killed.
    Broken(ExitStatus),
}

/// Starts `machine` with `software`.
pub fn start(
    machine: &Machine,
    software: Software<'_>,
    accelerator: Accelerator,
    serial: Serial,
    qmp: PathBuf,
) -> Result<Qemu> {
    let (medium, ovmf, variables) = match (software, machine.way) {
        (Software::Linux(linux), _) => (Medium::Linux(linux.clone()), None, None),
        (Software::Altmap(images), Way::SeaBios) => (Medium::Disk(images.bios.clone()), None, None),
        (Software::Altmap(images), Way::Pvh) => (Medium::Elf(images.elf.clone()), None, None),
        (Software::Altmap(images), Way::Ovmf) => {
            let (ovmf, directory) = own_variables(firmware::ovmf()?)?;
            (Medium::Disk(images.uefi.clone()), Some(ovmf), Some(directory))
        }
    };
    let (stdin, told) = match serial {
        Serial::Terminal => (Stdio::inherit(), Told::User),
        Serial::Socket(_) => (Stdio::null(), Told::User),
        Serial::Nowhere => (Stdio::null(), Told::Nobody),
    };
    let arguments = arguments(machine, &Wiring { medium, ovmf, serial, qmp, accelerator });
    let program = emulator::program();
    let mut child = Command::new(program)
        .args(&arguments)
        .stdin(stdin)
        .stderr(Stdio::piped())
        .create_pidfd(true)
        .spawn()
        .with_context(|| format!("{program} does not start; is it installed (./x doctor)?"))?;
    let watch = Watch::start(&mut child, told)?;
    let words = arguments.iter().map(|word| quoted(word));
    let command_line = std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    Ok(Qemu { child, watch, command_line, _variables: variables })
}

/// A machine writes its firmware's variables; each run gets a copy.
fn own_variables(ovmf: Ovmf) -> Result<(Ovmf, TempDir)> {
    let directory = tempfile::tempdir().context("cannot make a directory for the UEFI variables")?;
    let variables = directory.path().join("vars.fd");
    fs::copy(&ovmf.variables, &variables).with_context(|| format!("cannot copy {}", ovmf.variables.display()))?;
    Ok((Ovmf { variables, ..ovmf }, directory))
}

/// QEMU's command line.
pub fn arguments(machine: &Machine, wiring: &Wiring) -> Vec<String> {
    let mut line = Line(Vec::new());
    let board = match machine.board {
        Board::Q35 => "q35",
        Board::Pc => "pc",
        Board::Microvm => "microvm",
    };
    line.pair("-machine", board);
    line.pair("-accel", wiring.accelerator.name());
    if wiring.accelerator == Accelerator::Counting {
        line.pair("-icount", "shift=0,sleep=on");
    }
    line.pair("-cpu", cpu(machine, wiring.accelerator));
    line.pair("-smp", machine.cpus);
    let Machine { memory, slots, maxmem, .. } = machine;
    let hotplug = if *slots > 0 { format!(",slots={slots},maxmem={maxmem}") } else { String::new() };
    line.pair("-m", format!("{memory}{hotplug}"));
    if machine.nodes > 1 {
        nodes(machine, &mut line);
    } else if *memory > READILY_PROMISED {
        line.pair("-object", format!("memory-backend-ram,id=ram0,size={memory},reserve=off"));
        line.pair("-machine", "memory-backend=ram0");
    }
    for (number, dimm) in machine.dimms.iter().enumerate() {
        cold_dimm(number, dimm, &mut line);
    }
    for (number, device) in machine.virtio_mems.iter().enumerate() {
        virtio_mem(number, device, &mut line);
    }
    if let Some(ovmf) = &wiring.ovmf {
        let (code, variables) = (file_name(&ovmf.code), file_name(&ovmf.variables));
        line.pair("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"));
        line.pair("-drive", format!("if=pflash,format=raw,unit=1,file={variables}"));
    }
    match &wiring.medium {
        // Several machines share the image, and the kernel never writes it.
        Medium::Disk(disk) => line.pair("-drive", format!("format=raw,if=virtio,readonly=on,file={}", file_name(disk))),
        Medium::Elf(elf) => line.pair("-kernel", elf.display()),
        Medium::Linux(linux) => {
            line.pair("-kernel", linux.kernel.display());
            line.pair("-initrd", linux.initramfs.display());
            line.pair("-append", machine.params.join(" "));
            // It restarts after a panic; that is an end like any other.
            line.0.push("-no-reboot".to_owned());
        }
    }
    // A network card would cost a boot ROM's time.
    line.0.push("-nodefaults".to_owned());
    if !matches!(wiring.medium, Medium::Elf(_)) {
        // SeaBIOS hands over to the bootloader only where there is a VGA.
        line.pair("-vga", "std");
    }
    line.pair("-display", "none");
    match &wiring.serial {
        Serial::Terminal => line.pair("-serial", "mon:stdio"),
        Serial::Socket(path) => {
            line.pair("-chardev", format!("socket,id=console,path={}", file_name(path)));
            line.pair("-serial", "chardev:console");
        }
        Serial::Nowhere => line.pair("-serial", "null"),
    }
    line.pair("-qmp", listening(&wiring.qmp));
    if wiring.accelerator == Accelerator::Counting {
        line.pair("-qmp", listening(&pulse::socket(&wiring.qmp)));
    }
    line.pair("-device", DEBUG_EXIT);
    if !machine.params.is_empty() && !matches!(wiring.medium, Medium::Linux(_)) {
        let params = escaped(&machine.params.join(" "));
        line.pair("-fw_cfg", format!("name=opt/altmap/cmdline,string={params}"));
    }
    if machine.debugger == Debugger::WaitFor {
        line.0.extend(["-s".to_owned(), "-S".to_owned()]);
    }
    line.0.extend(machine.extra.iter().cloned());
    line.0
}

/// TCG's `max` has 40 address bits, the last of which QEMU partly keeps for itself; KVM's has the host's.
fn cpu(machine: &Machine, accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Tcg if machine.maxmem > FITS_46_BITS => "max,phys-bits=48",
        Accelerator::Tcg if machine.maxmem > FITS_40_BITS => "max,phys-bits=46",
        // Whatever is compared runs on the same processor.
        Accelerator::Counting => "max,phys-bits=46",
        _ => "max",
    }
}

struct Line(Vec<String>);

impl Line {
    fn pair(&mut self, flag: &str, value: impl ToString) {
        self.0.extend([flag.to_owned(), value.to_string()]);
    }
}

fn nodes(machine: &Machine, line: &mut Line) {
    for node in 0..machine.nodes {
        let size = node_memory(machine.memory, machine.nodes, node);
        line.pair("-object", format!("memory-backend-ram,id=ram{node},size={size},reserve=off"));
        line.pair("-numa", format!("node,nodeid={node},memdev=ram{node}"));
    }
    // Nodes differ in distance, so that the guest gets a SLIT.
    for (from, to) in pairs(machine.nodes) {
        line.pair("-numa", format!("dist,src={from},dst={to},val=21"));
    }
}

fn pairs(nodes: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..nodes).flat_map(move |from| (from + 1..nodes).map(move |to| (from, to)))
}

/// Equal shares in whole MiB; the last node takes the rest.
fn node_memory(memory: Bytes, nodes: u32, node: u32) -> Bytes {
    let share = (memory.0 / u64::from(nodes)) & !((1 << 20) - 1);
    let last = node == nodes - 1;
    Bytes(if last { memory.0 - share * u64::from(nodes - 1) } else { share })
}

fn cold_dimm(number: usize, dimm: &Dimm, line: &mut Line) {
    let id = dimm.id.clone().unwrap_or_else(|| format!("dimm{number}"));
    // The host need not promise all of a large module before the guest uses it.
    line.pair("-object", format!("memory-backend-ram,id={},size={},reserve=off", backend(&id), dimm.size));
    let mut device = format!("pc-dimm,id={id},memdev={}", backend(&id));
    if let Some(node) = dimm.node {
        device += &format!(",node={node}");
    }
    if let Some(address) = dimm.address {
        device += &format!(",addr={address:#x}");
    }
    line.pair("-device", device);
}

/// The guest calls the devices by the same names, in the order of their places on the bus.
fn virtio_mem(number: usize, device: &VirtioMem, line: &mut Line) {
    let id = format!("vmem{number}");
    let VirtioMem { size, requested, node, block } = device;
    line.pair("-object", format!("memory-backend-ram,id={},size={size},reserve=off", backend(&id)));
    let mut text = format!("virtio-mem-pci,id={id},memdev={},requested-size={requested}", backend(&id));
    if let Some(node) = node {
        text += &format!(",node={node}");
    }
    if let Some(block) = block {
        text += &format!(",block-size={block}");
    }
    line.pair("-device", text);
}

/// The id of the memory behind a device.
pub fn backend(dimm: &str) -> String {
    format!("{dimm}-ram")
}

/// QEMU splits option values at commas; a doubled one is meant as such.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn listening(socket: &std::path::Path) -> String {
    format!("unix:{},server=on,wait=off", file_name(socket))
}

fn file_name(path: &std::path::Path) -> String {
    escaped(&path.display().to_string())
}

/// A word as a shell would want it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Qemu {
    /// Bytes of the host's memory that it uses now.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("QEMU is gone")?;
        resident_bytes(&status).context("no VmRSS in the status of QEMU's process")
    }

    /// What all its threads have executed until now.
    pub fn cpu_time(&self) -> Result<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).context("QEMU is gone")?;
        let times = threads.map(|thread| {
            let file = thread?.path().join("schedstat");
            let text = fs::read_to_string(&file)?;
            // The first number is the time on a CPU in nanoseconds (Documentation/scheduler/sched-stats.rst).
            let nanos = text.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
            nanos.with_context(|| format!("{} says: {text}", file.display()))
        });
        Ok(Duration::from_nanos(times.sum::<Result<u64>>()?))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<Exit>> {
        Ok(self.child.try_wait().context("cannot wait for QEMU")?.map(|status| self.exit(status)))
    }

    /// Waits for its end; `None` when the time is over.
    pub fn wait(&mut self, limit: Duration) -> Option<Exit> {
        wait_at_most(&mut self.child, limit).map(|status| self.exit(status))
    }

    fn exit(&self, status: ExitStatus) -> Exit {
        if self.watch.has_given_up() { Exit::GivenUp } else { Exit::of(status) }
    }

    /// Tells QEMU to quit, which gives a terminal back as it was; what does not listen is killed.
    pub fn quit(&mut self) {
        // It may have ended by itself already.
        self.child.send_signal(SIGTERM).ok();
        if self.wait(QUIT).is_none() {
            self.kill();
        }
    }

    /// Ends it without asking the guest.
    pub fn kill(&mut self) {
        // It may have ended by itself already.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// What the status of a Linux process says of its memory.
fn resident_bytes(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok().map(|kib| kib << 10)
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        self.watch.finish();
    }
}

/// Waits for a process; `None` when the time is over.
pub fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Exit {
    const SUCCESS: i32 = 0x10 << 1 | 1;
    const FAILURE: i32 = 0x20 << 1 | 1;

    /// What QEMU's exit status says.
    pub fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::PoweredOff,
            Some(Self::SUCCESS) => Self::Success,
            Some(Self::FAILURE) => Self::Failure,
            _ => Self::Broken(status),
        }
    }

    /// An error unless the guest was content.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Success | Self::PoweredOff => Ok(()),
            Self::Failure | Self::GivenUp | Self::Broken(_) => bail!("{self}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("the guest ended content"),
            Self::Failure => f.write_str("the guest failed"),
            Self::PoweredOff => f.write_str("the machine was powered off"),
            Self::GivenUp => f.write_str(giving_up::SENTENCE),
            Self::Broken(status) => write!(f, "QEMU failed: {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::mib;
    use signal_hook::consts::SIGKILL;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;

    fn wiring() -> Wiring {
        Wiring {
            medium: Medium::Disk("bios.img".into()),
            ovmf: None,
            serial: Serial::Terminal,
            qmp: "qmp.sock".into(),
            accelerator: Accelerator::Tcg,
        }
    }

    fn line(machine: &Machine) -> String {
        arguments(machine, &wiring()).join(" ")
    }

    #[track_caller]
    fn assert_contains(line: &str, part: &str) {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }

    #[test]
    fn the_default_machine_is_the_documented_one() {
        let line = line(&Machine::default());
        assert_contains(&line, "-machine q35 ");
        assert_contains(&line, "-m 1G,slots=8,maxmem=64G");
        assert_contains(&line, "-device isa-debug-exit,iobase=0xf4,iosize=4");
        assert_contains(&line, "-qmp unix:qmp.sock,server=on,wait=off");
        assert!(!line.contains("-numa") && !line.contains("fw_cfg") && !line.contains("-S"), "{line}");
    }

    #[test]
    fn nodes_share_the_memory_and_have_distances() {
        let line = line(&Machine { nodes: 2, memory: gib(2), ..Machine::default() });
        assert_contains(&line, "memory-backend-ram,id=ram0,size=1G,reserve=off -numa node,nodeid=0,memdev=ram0");
        assert_contains(&line, "memory-backend-ram,id=ram1,size=1G,reserve=off -numa node,nodeid=1,memdev=ram1");
        assert_contains(&line, "-numa dist,src=0,dst=1,val=21");
    }

    #[test]
    fn the_host_need_not_set_much_memory_aside() {
        let much = line(&Machine { memory: gib(130), ..Machine::default() });
        assert_contains(&much, "-object memory-backend-ram,id=ram0,size=130G,reserve=off -machine memory-backend=ram0");
        assert!(!line(&Machine::default()).contains("memory-backend"));
    }

    #[test]
    fn no_byte_is_lost_when_memory_does_not_divide() {
        let shares: u64 = (0..3).map(|node| node_memory(gib(1), 3, node).0).sum();
        assert_eq!(Bytes(shares), gib(1));
    }

    #[test]
    fn cold_dimms_have_a_backend_each() {
        let dimm = Dimm { size: mib(256), id: None, node: Some(1), address: Some(0x1_8000_0000) };
        let line = line(&Machine { dimms: vec![dimm], ..Machine::default() });
        assert_contains(&line, "-object memory-backend-ram,id=dimm0-ram,size=256M,reserve=off");
        assert_contains(&line, "-device pc-dimm,id=dimm0,memdev=dimm0-ram,node=1,addr=0x180000000");
    }

    #[test]
    fn devices_that_grow_have_a_backend_each_and_what_they_begin_with() {
        let plain = VirtioMem { size: gib(8), requested: Bytes(0), node: None, block: None };
        let other = VirtioMem { requested: mib(512), node: Some(1), block: Some(mib(8)), ..plain.clone() };
        let line = line(&Machine { virtio_mems: vec![plain, other], ..Machine::default() });
        assert_contains(&line, "-object memory-backend-ram,id=vmem0-ram,size=8G,reserve=off");
        assert_contains(&line, "-device virtio-mem-pci,id=vmem0,memdev=vmem0-ram,requested-size=0 ");
        assert_contains(&line, "id=vmem1,memdev=vmem1-ram,requested-size=512M,node=1,block-size=8M");
    }

    #[test]
    fn a_machine_that_grows_by_terabytes_has_the_address_bits_for_it() {
        assert_contains(&line(&Machine { maxmem: gib(8 << 10), ..Machine::default() }), "-cpu max,phys-bits=46 ");
        assert_contains(&line(&Machine { maxmem: gib(70 << 10), ..Machine::default() }), "-cpu max,phys-bits=48 ");
        assert_contains(&line(&Machine::default()), "-cpu max ");
    }

    #[test]
    fn a_machine_without_slots_has_no_maxmem() {
        let arguments = arguments(&Machine { slots: 0, ..Machine::default() }, &wiring());
        assert!(arguments.windows(2).any(|pair| pair == ["-m", "1G"]), "{arguments:?}");
    }

    #[test]
    fn commas_in_parameters_and_paths_survive_qemus_parser() {
        let params = vec![r#"run="online 32,34; lsmem""#.to_owned(), "loglevel=7".to_owned()];
        let arguments = arguments(
            &Machine { params, ..Machine::default() },
            &Wiring { medium: Medium::Disk("a,b".into()), ..wiring() },
        );
        assert!(
            arguments.contains(&r#"name=opt/altmap/cmdline,string=run="online 32,,34; lsmem" loglevel=7"#.to_owned())
        );
        assert!(arguments.contains(&"format=raw,if=virtio,readonly=on,file=a,,b".to_owned()));
    }

    #[test]
    fn uefi_gets_its_own_variables() {
        let ovmf = Some(Ovmf { code: "CODE.fd".into(), variables: "VARS.fd".into() });
        let line = arguments(&Machine::default(), &Wiring { ovmf, ..wiring() }).join(" ");
        assert_contains(&line, "if=pflash,format=raw,unit=0,readonly=on,file=CODE.fd");
        assert_contains(&line, "if=pflash,format=raw,unit=1,file=VARS.fd");
    }

    #[test]
    fn linux_gets_the_parameters_as_its_command_line_on_the_same_machine() {
        let linux = Linux { kernel: "vmlinuz".into(), initramfs: "init.cpio".into() };
        let machine = Machine { params: vec!["console=ttyS0".to_owned(), "quiet".to_owned()], ..Machine::default() };
        let wiring = Wiring { medium: Medium::Linux(linux), accelerator: Accelerator::Counting, ..wiring() };
        let arguments = arguments(&machine, &wiring);
        let line = arguments.join(" ");
        assert_contains(&line, "-accel tcg,thread=single -icount shift=0,sleep=on -cpu max,phys-bits=46 ");
        assert_contains(&line, "-qmp unix:qmp.sock.pulse,server=on,wait=off");
        assert_contains(&line, "-kernel vmlinuz -initrd init.cpio -append console=ttyS0 quiet -no-reboot");
        assert!(!line.contains("fw_cfg") && !line.contains("-drive"), "{line}");
    }

    #[test]
    fn a_pvh_guest_needs_neither_a_disk_nor_a_screen_and_its_parameters_come_the_same_way() {
        let wiring = Wiring { medium: Medium::Elf("altmap.elf".into()), ..wiring() };
        let machine =
            Machine { board: Board::Microvm, slots: 0, params: vec!["mem=1G".to_owned()], ..Machine::default() };
        let line = arguments(&machine, &wiring).join(" ");
        assert_contains(&line, "-machine microvm ");
        assert_contains(&line, "-m 1G -kernel altmap.elf -nodefaults -display none");
        assert_contains(&line, "-fw_cfg name=opt/altmap/cmdline,string=mem=1G");
        assert!(!line.contains("-vga") && !line.contains("-drive"), "{line}");
    }

    #[test]
    fn extra_arguments_come_last_and_the_debugger_is_waited_for() {
        let extra = vec!["-d".to_owned(), "int".to_owned()];
        let line = line(&Machine { debugger: Debugger::WaitFor, extra, ..Machine::default() });
        assert!(line.ends_with("-s -S -d int"), "{line}");
    }

    #[test]
    fn the_memory_of_a_process_is_read_from_its_status() {
        assert_eq!(resident_bytes("Name:\tqemu\nVmRSS:\t  103096 kB\nThreads:\t5\n"), Some(103_096 << 10));
        assert_eq!(resident_bytes("Name:\tqemu\n"), None);
    }

    #[test]
    fn the_printed_line_can_be_typed() {
        assert_eq!(quoted("format=raw,file=a.img"), "format=raw,file=a.img");
        assert_eq!(quoted("run=\"a b\""), "'run=\"a b\"'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[track_caller]
    fn assert_quits(script: &str, signal: i32) {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().expect("started");
        // It says when it is ready for a signal.
        let ready = child.stdout.as_mut().expect("piped").read(&mut [0]).expect("read");
        assert_eq!(ready, 1);
        let mut qemu = Qemu { child, watch: Watch::default(), command_line: String::new(), _variables: None };
        qemu.quit();
        let exit = qemu.ended().expect("waited");
        assert!(matches!(exit, Some(Exit::Broken(status)) if status.signal() == Some(signal)), "{exit:?}");
    }

    #[test]
    fn a_process_is_asked_to_quit_before_it_is_killed() {
        assert_quits("echo; exec sleep 60", SIGTERM);
        assert_quits("trap '' TERM; echo; exec sleep 60", SIGKILL);
    }

    #[test]
    fn a_process_that_has_given_up_is_ended_and_told_from_others() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60"]).stderr(Stdio::piped());
        let mut child = command.create_pidfd(true).spawn().expect("started");
        let watch = Watch::start(&mut child, Told::Nobody).expect("watched");
        let mut qemu = Qemu { child, watch, command_line: String::new(), _variables: None };
        assert_eq!(qemu.wait(Duration::from_secs(30)), Some(Exit::GivenUp));
    }

    #[test]
    fn the_guests_codes_are_told_from_qemus() {
        let exit = |code: i32| Exit::of(ExitStatus::from_raw(code << 8));
        assert_eq!([exit(0), exit(33), exit(65)], [Exit::PoweredOff, Exit::Success, Exit::Failure]);
        assert!(matches!(exit(1), Exit::Broken(_)));
        assert!(matches!(Exit::of(ExitStatus::from_raw(9)), Exit::Broken(_)));
    }
}
