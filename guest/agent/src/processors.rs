//! On which processors the agent runs.
//!
//! An emulated guest (QEMU TCG) pays dearly for waking its other processor: the interrupt goes through the emulator's one big lock, and
//! a processor that sleeps is a thread of the host that must be scheduled. The bytes of a terminal pass through a worker of the kernel
//! at every page, which is two such wake-ups; the kernel holds a lock over them, for which the other processor spins. So what a byte
//! passes on its way between a terminal and the host stays on one processor: interrupts of devices, workers of the kernel, the threads
//! of the runtime. Programs of the sandbox, and the agent's work with files, run anywhere.
//!
//! Measured with two processors on an idle host: bursts of a terminal 25 → 39 MB/s, the echo of a key after a pause 2.5 → 1.4 ms
//! (99 %: 12 → 6 ms). On a busy host the bursts gain more.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first, as the kernel writes a set.
const OURS: &str = "1";

static SETTLED: AtomicBool = AtomicBool::new(false);

/// To be called before devices have their interrupts and before there is any other thread: both inherit what is set here.
pub fn settle() -> io::Result<()> {
    if is_emulated() {
        std::fs::write("/proc/irq/default_smp_affinity", OURS)?;
        std::fs::write("/sys/devices/virtual/workqueue/cpumask", OURS)?;
        SETTLED.store(true, Ordering::Relaxed);
        stay();
    }
    Ok(())
}

/// Keeps the calling thread where the runtime is, for work that goes hand in hand with it.
pub fn stay() {
    // SAFETY: a set of bits is plain data, valid when zeroed, and 0 is within it.
    let ours = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        set
    };
    set(&ours);
}

/// Lets the calling thread, and what it starts, run anywhere. Async-signal-safe.
pub fn roam() {
    // SAFETY: a set of bits, any of which may be set; the kernel ignores those of processors that are not there.
    let all = unsafe { std::mem::transmute::<[u8; size_of::<libc::cpu_set_t>()], libc::cpu_set_t>([0xff; _]) };
    set(&all);
}

fn set(processors: &libc::cpu_set_t) {
    if SETTLED.load(Ordering::Relaxed) {
        // SAFETY: the kernel reads a set of the given size. To be refused costs speed and nothing else.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), processors) };
    }
}

/// By the name that a hypervisor gives itself in CPUID leaf 0x40000000.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)] // Newer compilers know that it is safe.
fn is_emulated() -> bool {
    // SAFETY: every processor that runs this has CPUID, and answers an unknown leaf with something else.
    let leaf = unsafe { std::arch::x86_64::__cpuid(0x4000_0000) };
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == b"TCGTCGTCGTCG"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_emulated() -> bool {
    false
}
