//! QEMU's command line. Every QEMU flag of the project is in this file.

use std::path::Path;

use super::{Board, Debugger, Dimm, Machine, Medium, Serial, VirtioMem, Wiring};
use crate::accelerator::Accelerator;
use crate::pulse;
use crate::size::{Bytes, gib};

/// Turns a byte written to the port into QEMU's exit status, `2 * byte + 1`. By its name `-set` reaches it.
const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4,id=debug-exit";

/// Room to grow for which 40 address bits are enough, whatever else lies there.
const FITS_40_BITS: Bytes = gib(512);
/// The same for 46 bits.
const FITS_46_BITS: Bytes = gib(32 << 10);

/// More memory than this a host may refuse to set aside, though the guest uses little of it.
const READILY_PROMISED: Bytes = gib(4);

/// QEMU's command line.
pub(super) fn arguments(machine: &Machine, wiring: &Wiring) -> Vec<String> {
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
    let hotplug = match slots {
        0 if machine.virtio_mems.is_empty() => String::new(),
        0 => format!(",maxmem={maxmem}"),
        slots => format!(",slots={slots},maxmem={maxmem}"),
    };
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
    let VirtioMem { size, requested, node, block, standby } = device;
    line.pair("-object", format!("memory-backend-ram,id={},size={size},reserve=off", backend(&id)));
    let mut text = format!("virtio-mem-pci,id={id},memdev={},requested-size={requested}", backend(&id));
    if let Some(node) = node {
        text += &format!(",node={node}");
    }
    if let Some(block) = block {
        text += &format!(",block-size={block}");
    }
    if *standby {
        text += ",unplugged-inaccessible=on";
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

fn listening(socket: &Path) -> String {
    format!("unix:{},server=on,wait=off", file_name(socket))
}

fn file_name(path: &Path) -> String {
    escaped(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::Ovmf;
    use crate::qemu::Linux;
    use crate::size::mib;

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
        let plain = VirtioMem { size: gib(8), requested: Bytes(0), node: None, block: None, standby: false };
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
    fn a_machine_without_slots_grows_by_devices_only() {
        let arguments = arguments(&Machine { slots: 0, ..Machine::default() }, &wiring());
        assert!(arguments.windows(2).any(|pair| pair == ["-m", "1G"]), "{arguments:?}");
        let device = VirtioMem { size: gib(8), requested: Bytes(0), node: None, block: None, standby: false };
        let growing = Machine { slots: 0, virtio_mems: vec![device], ..Machine::default() };
        assert_contains(&line(&growing), "-m 1G,maxmem=64G ");
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
}
