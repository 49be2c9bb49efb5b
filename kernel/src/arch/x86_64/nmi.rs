//! Looking at what another CPU does, whatever that is: an NMI has it note where it was.
//!
//! Notes lie in statics and are read one at a time: whoever looks may have little stack left.

use super::backtrace::Frames;
use super::interrupts::local_apic;
use super::{busy_wait, cpu, irq};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use core::time::Duration;

/// Callers beyond this many are not noted.
const FRAMES_MAX: usize = 24;
/// CPUs that have not stopped by then are beyond help.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a CPU notes of itself.
struct Note {
    /// NMIs that were sent and have not come. One that comes late is not taken for the machine's.
    expected: AtomicUsize,
    taken: AtomicBool,
    task: AtomicUsize,
    place: AtomicUsize,
    /// Return addresses, innermost first; the first zero ends them.
    callers: [AtomicUsize; FRAMES_MAX],
}

static NOTES: [Note; cpu::CPUS_MAX] = [const {
    Note {
        expected: AtomicUsize::new(0),
        taken: AtomicBool::new(false),
        task: AtomicUsize::new(0),
        place: AtomicUsize::new(0),
        callers: [const { AtomicUsize::new(0) }; FRAMES_MAX],
    }
}; cpu::CPUS_MAX];

/// Set when every CPU that gets an NMI stays there.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Where a CPU was.
#[derive(Clone, Debug)]
pub(crate) struct CpuTrace {
    /// The slot of the task that it ran.
    pub(crate) task: usize,
    /// The address of the next instruction; zero if only callers are known.
    pub(crate) place: usize,
    /// Return addresses, innermost first.
    pub(crate) callers: heapless::Vec<usize, FRAMES_MAX>,
}

impl Note {
    fn take(&self, place: usize, mut callers: Frames) {
        self.task.store(cpu::current_task(), SeqCst);
        self.place.store(place, SeqCst);
        for slot in &self.callers {
            slot.store(callers.next().unwrap_or(0), SeqCst);
        }
        self.taken.store(true, SeqCst);
    }
}

/// Has another CPU note where it is; [`trace_of`] tells when it has.
pub(crate) fn ask_where(id: usize) {
    let note = &NOTES[id];
    note.taken.store(false, SeqCst);
    note.expected.fetch_add(1, SeqCst);
    let _off = irq::irq_off();
    local_apic().send_nmi(cpu::CPUS[id].apic_id());
}

/// Where another CPU was when it was asked; `None` as long as it has not answered.
pub(crate) fn trace_of(id: usize) -> Option<CpuTrace> {
    let note = &NOTES[id];
    note.taken.load(SeqCst).then(|| CpuTrace {
        task: note.task.load(SeqCst),
        place: note.place.load(SeqCst),
        callers: note.callers.iter().map(|caller| caller.load(SeqCst)).take_while(|caller| *caller != 0).collect(),
    })
}

/// Stops every other CPU for good, where it is, as far as that is possible; [`trace_of`] tells where.
pub(crate) fn stop_others() {
    STOPPING.store(true, SeqCst);
    let own = cpu::cpu_id();
    // One that stopped by itself has told already, and takes no NMI.
    let others = || cpu::online_cpus().filter(|id| *id != own && !is_stopped(*id));
    others().for_each(ask_where);
    for _ in 0..PATIENCE.as_micros() / 100 {
        if others().next().is_none() {
            return;
        }
        busy_wait(Duration::from_micros(100));
    }
}

fn is_stopped(id: usize) -> bool {
    STOPPING.load(SeqCst) && NOTES[id].taken.load(SeqCst)
}

/// Notes where this CPU is, and is the end of its work.
pub(crate) fn stop_here(place: usize, callers: Frames) -> ! {
    NOTES[cpu::cpu_id()].take(place, callers);
    irq::halt_forever()
}

/// An NMI has come, and interrupted what `place` and `frame_pointer` say; returns whether it was asked for here.
pub(super) fn on_nmi(place: usize, frame_pointer: usize) -> bool {
    let note = &NOTES[cpu::cpu_id()];
    let wanted = note.expected.try_update(SeqCst, SeqCst, |count| count.checked_sub(1)).is_ok();
    if wanted {
        note.take(place, Frames::from(frame_pointer));
        if STOPPING.load(SeqCst) {
            irq::halt_forever();
        }
    }
    wanted
}
