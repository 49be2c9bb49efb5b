//! Looking at what another CPU does, whatever that is: an NMI has it note where it was.

use super::backtrace::Frames;
use super::interrupts::local_apic;
use super::{busy_wait, cpu, irq};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use core::time::Duration;

/// Callers beyond this many are not noted.
const FRAMES_MAX: usize = 24;
/// A CPU that has not answered by then is beyond help.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a CPU notes of itself.
struct Note {
    wanted: AtomicBool,
    taken: AtomicBool,
    task: AtomicUsize,
    place: AtomicUsize,
    /// Return addresses, innermost first; the first zero ends them.
    callers: [AtomicUsize; FRAMES_MAX],
}

static NOTES: [Note; cpu::CPUS_MAX] = [const {
    Note {
        wanted: AtomicBool::new(false),
        taken: AtomicBool::new(false),
        task: AtomicUsize::new(0),
        place: AtomicUsize::new(0),
        callers: [const { AtomicUsize::new(0) }; FRAMES_MAX],
    }
}; cpu::CPUS_MAX];

/// Set when every CPU that gets an NMI shall stay there.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Where a CPU was.
#[derive(Clone, Debug)]
pub(crate) struct CpuTrace {
    pub(crate) cpu: usize,
    /// The slot of the task that it ran.
    pub(crate) task: usize,
    /// The address of the next instruction.
    pub(crate) place: usize,
    /// Return addresses, innermost first.
    pub(crate) callers: heapless::Vec<usize, FRAMES_MAX>,
}

/// Where another CPU is now; `None` if it does not answer even an NMI.
pub(crate) fn trace_of(id: usize) -> Option<CpuTrace> {
    let note = &NOTES[id];
    note.taken.store(false, SeqCst);
    note.wanted.store(true, SeqCst);
    {
        let _off = irq::irq_off();
        local_apic().send_nmi(cpu::CPUS[id].apic_id());
    }
    for _ in 0..PATIENCE.as_millis() {
        if note.taken.load(SeqCst) {
            break;
        }
        busy_wait(Duration::from_millis(1));
    }
    note.wanted.store(false, SeqCst);
    note.taken.load(SeqCst).then(|| CpuTrace {
        cpu: id,
        task: note.task.load(SeqCst),
        place: note.place.load(SeqCst),
        callers: note.callers.iter().map(|caller| caller.load(SeqCst)).take_while(|caller| *caller != 0).collect(),
    })
}

/// Stops every other CPU for good, where it is, and says where that was, or which one did not answer.
pub(crate) fn stop_others() -> impl Iterator<Item = Result<CpuTrace, usize>> {
    STOPPING.store(true, SeqCst);
    let own = cpu::cpu_id();
    let others: heapless::Vec<usize, { cpu::CPUS_MAX }> =
        cpu::online().map(|(id, _)| id).filter(|id| *id != own).collect();
    // All are stopped before any is told of.
    let traces: heapless::Vec<_, { cpu::CPUS_MAX }> = others.into_iter().map(|id| trace_of(id).ok_or(id)).collect();
    traces.into_iter()
}

/// An NMI has come, and interrupted what `place` and `frame_pointer` say; whether somebody here wanted it.
pub(super) fn on_nmi(place: usize, frame_pointer: usize) -> bool {
    let note = &NOTES[cpu::cpu_id()];
    if !note.wanted.swap(false, SeqCst) {
        return false;
    }
    note.task.store(cpu::current_task(), SeqCst);
    note.place.store(place, SeqCst);
    let mut callers = Frames::from(frame_pointer);
    for slot in &note.callers {
        slot.store(callers.next().unwrap_or(0), SeqCst);
    }
    note.taken.store(true, SeqCst);
    if STOPPING.load(SeqCst) {
        irq::halt_forever();
    }
    true
}
