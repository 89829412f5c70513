//! Loading and attaching.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{BtfTracePoint, Iter, Program, TracePoint},
    util::nr_cpus,
};
use observer_common::{Host, Offsets};

use super::{
    KernelError,
    attach::{Hook, PROBES, Probe, SWEEP},
    maps::{LossCounters, SlotTable},
    tracefs::{self, Tracefs},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer.bpf.o"));

/// Sizes chosen by configuration.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Bytes of the ordinary ring: a power of two of pages.
    pub events_bytes: u32,
    /// Bytes of the priority ring: a power of two of pages.
    pub priority_bytes: u32,
}

/// What became of one probe.
#[derive(Debug)]
pub struct ProbeStatus {
    pub probe: &'static Probe,
    pub result: Result<(), KernelError>,
}

/// Both rings, for the reader.
pub struct Rings {
    pub priority: RingBuf<MapData>,
    pub events: RingBuf<MapData>,
}

/// Loaded and attached programs. They run until this is dropped.
pub struct Kernel {
    /// Keeps programs and links alive.
    bpf: Ebpf,
    _events: Vec<OwnedFd>,
    pub probes: Vec<ProbeStatus>,
    pub offsets: Offsets,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("probes", &self.probes).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads the object file for this kernel and attaches every probe that can be. A required probe that cannot
    /// is still only reported here: `check` wants to see all of them; `run` asks [`Kernel::require`].
    pub fn load(options: LoadOptions) -> Result<Self, KernelError> {
        // Both read all of the kernel's types, each in its own way: at the same time.
        let (offsets, btf) = std::thread::scope(|scope| {
            let offsets = scope.spawn(|| super::read_offsets(super::VMLINUX.as_ref()));
            let btf = Btf::from_sys_fs()
                .map_err(|error| KernelError::Btf { path: super::VMLINUX.into(), what: chain(&error) });
            (offsets.join(), btf)
        });
        let offsets = offsets.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let btf = btf?;
        let pid_max = pid_max()?;
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&btf))
            .override_global("OFFSETS", &offsets, true)
            .map_max_entries("TASKS", pid_max)
            .map_max_entries("TUPLES", pid_max)
            .map_max_entries("EVENTS", options.events_bytes)
            .map_max_entries("PRIORITY", options.priority_bytes);
        let mut bpf = loader.load(OBJECT).map_err(|error| KernelError::Load(chain(&error)))?;
        wake_at(&mut bpf, u64::from(options.events_bytes) / 8)?;
        let (probes, events) = attach_all(&mut bpf, &btf);
        Ok(Kernel { bpf, _events: events, probes, offsets })
    }

    /// Fails with the first required probe that is not attached.
    pub fn require(&mut self) -> Result<(), KernelError> {
        match self.probes.iter().position(|p| p.probe.required && p.result.is_err()) {
            Some(at) => self.probes.swap_remove(at).result,
            None => Ok(()),
        }
    }

    pub fn rings(&mut self) -> Result<Rings, KernelError> {
        let mut ring = |name| {
            let map = self
                .bpf
                .take_map(name)
                .ok_or(KernelError::Map { name, what: "not in the object file".into() })?;
            RingBuf::try_from(map).map_err(|error| KernelError::Map { name, what: chain(&error) })
        };
        Ok(Rings { priority: ring("PRIORITY")?, events: ring("EVENTS")? })
    }

    pub fn slots(&mut self) -> Result<SlotTable, KernelError> {
        SlotTable::new(&mut self.bpf)
    }

    pub fn losses(&mut self) -> Result<LossCounters, KernelError> {
        LossCounters::new(&mut self.bpf)
    }

    /// Looks at every thread there is; what is found comes by the rings. False if this kernel does not allow it.
    pub fn sweep(&mut self) -> bool {
        let usable = self.probes.iter().any(|p| p.probe.program == SWEEP && p.result.is_ok());
        usable && self.run_sweep().is_ok()
    }

    fn run_sweep(&mut self) -> Result<(), KernelError> {
        let fail =
            |what: String| KernelError::Probe { program: SWEEP, step: "run", hook: "iter/task".into(), what };
        let program = self.bpf.program_mut(SWEEP).ok_or_else(|| fail("not in the object file".into()))?;
        let program: &mut Iter = program.try_into().map_err(|e| fail(chain(&e)))?;
        let link = program.attach().map_err(|e| fail(chain(&e)))?;
        let link = program.take_link(link).map_err(|e| fail(chain(&e)))?;
        let mut file = link.into_file().map_err(|e| fail(chain(&e)))?;
        let mut nothing = [0; 64];
        loop {
            match file.read(&mut nothing) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // After a million tasks in one go the kernel asks to be called again.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(fail(error.to_string())),
            }
        }
    }

    /// Makes this process's own namespaces and root the host's.
    pub fn set_host(&mut self, host: Host) -> Result<(), KernelError> {
        let name = "HOST";
        let map =
            self.bpf.map_mut(name).ok_or(KernelError::Map { name, what: "not in the object file".into() })?;
        let mut array: Array<_, Host> =
            Array::try_from(map).map_err(|error| KernelError::Map { name, what: chain(&error) })?;
        array.set(0, host, 0).map_err(|error| KernelError::Map { name, what: chain(&error) })
    }

    /// The host as pid 1 has it. The kernel program looks when this process calls unshare(0), which changes
    /// nothing.
    pub fn host(&mut self) -> Result<Host, KernelError> {
        // SAFETY: no flags, no effect.
        unsafe { libc::unshare(0) };
        let name = "HOST";
        let map =
            self.bpf.map(name).ok_or(KernelError::Map { name, what: "not in the object file".into() })?;
        let host: Array<_, Host> =
            Array::try_from(map).map_err(|error| KernelError::Map { name, what: chain(&error) })?;
        let host = host.get(&0, 0).map_err(|error| KernelError::Map { name, what: chain(&error) })?;
        if host.found == 0 { Err(KernelError::NoHost) } else { Ok(host) }
    }

    /// Prints the kernel programs' own debug lines to stderr, from a thread of its own, until the process ends.
    #[cfg(feature = "bpf-log")]
    pub fn start_log(&mut self) -> Result<(), KernelError> {
        let mut logger = aya_log::EbpfLogger::init_with_logger(&mut self.bpf, KernelLog)
            .map_err(|error| KernelError::Load(chain(&error)))?;
        std::thread::spawn(move || {
            loop {
                logger.flush();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        Ok(())
    }
}

/// Takes the kernel programs' lines into the agent's own log.
#[cfg(feature = "bpf-log")]
struct KernelLog;

#[cfg(feature = "bpf-log")]
impl log::Log for KernelLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        crate::telemetry::log::info!("kernel", line = record.args());
    }
    fn flush(&self) {}
}

/// Loads and attaches every probe. The verifier is what takes the time, and it works for several threads at once.
fn attach_all(bpf: &mut Ebpf, btf: &Btf) -> (Vec<ProbeStatus>, Vec<OwnedFd>) {
    let tracefs = Tracefs::open();
    let mut programs: HashMap<String, &mut Program> =
        bpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let todo: Vec<(usize, &'static Probe, Option<&mut Program>)> =
        PROBES.iter().enumerate().map(|(at, probe)| (at, probe, programs.remove(probe.program))).collect();
    let todo = Mutex::new(todo.into_iter());
    let done = Mutex::new(Vec::with_capacity(PROBES.len()));
    let work = || {
        loop {
            // Taken in a statement of its own, so that the lock is not held during the work.
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, probe, program)) = next else { return };
            let result = attach(program, probe, btf, &tracefs);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, probe, result));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, ..)| *at);
    let mut events = Vec::new();
    let probes = done
        .into_iter()
        .map(|(_, probe, result)| ProbeStatus { probe, result: result.map(|event| events.extend(event)) })
        .collect();
    (probes, events)
}

/// Loads and attaches one; a tracepoint's link is a descriptor to keep.
fn attach(
    program: Option<&mut Program>,
    probe: &'static Probe,
    btf: &Btf,
    tracefs: &Result<Tracefs, KernelError>,
) -> Result<Option<OwnedFd>, KernelError> {
    let fail = |step: &'static str, what: String| KernelError::Probe {
        program: probe.program,
        step,
        hook: probe.hook.to_string(),
        what,
    };
    let program = program.ok_or_else(|| fail("found", "the object file has no such program".into()))?;
    match probe.hook {
        Hook::TpBtf(name) => {
            let program: &mut BtfTracePoint = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
            program.load(name, btf).map_err(|e| fail("loaded", chain(&e)))?;
            program.attach().map_err(|e| fail("attached", chain(&e)))?;
            Ok(None)
        }
        Hook::Iterator(name) => {
            let program: &mut Iter = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
            program.load(name, btf).map_err(|e| fail("loaded", chain(&e)))?;
            Ok(None)
        }
        Hook::SyscallExit(name) => {
            let tracefs = tracefs.as_ref().map_err(|e| fail("attached", e.to_string()))?;
            let program: &mut TracePoint = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
            program.load().map_err(|e| fail("loaded", chain(&e)))?;
            let id = tracefs
                .event_id("syscalls", &format!("sys_exit_{name}"))
                .map_err(|e| fail("attached", e.to_string()))?;
            let fd = program.fd().map_err(|e| fail("attached", chain(&e)))?;
            tracefs::attach(fd.as_fd(), id).map(Some).map_err(|e| fail("attached", e.to_string()))
        }
    }
}

/// Sets at how many bytes in the ordinary ring its reader is woken.
fn wake_at(bpf: &mut Ebpf, bytes: u64) -> Result<(), KernelError> {
    let name = "WAKE_AT";
    let fail = |what: String| KernelError::Map { name, what };
    let map = bpf.map_mut(name).ok_or_else(|| fail("not in the object file".into()))?;
    let mut array: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(|e| fail(chain(&e)))?;
    let cpus = nr_cpus().map_err(|(what, error)| fail(format!("{what}: {error}")))?;
    let values = PerCpuValues::try_from(vec![bytes; cpus]).map_err(|e| fail(e.to_string()))?;
    array.set(0, values, 0).map_err(|e| fail(chain(&e)))
}

fn pid_max() -> Result<u32, KernelError> {
    let path = "/proc/sys/kernel/pid_max";
    let text =
        std::fs::read_to_string(path).map_err(|source| KernelError::Read { path: path.into(), source })?;
    // Ids stay below pid_max; the sysctl can be raised later, up to 4 Mi: tasks beyond the table have no mark of
    // their own and are known by their cgroup.
    Ok(text.trim().parse().unwrap_or(1 << 22))
}

/// An error with its causes, on one line; the verifier's log is cut to its end, where the reason stands.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    const KEEP: usize = 600;
    if std::env::var_os("OBSERVER_VERIFIER_LOG").is_none() && text.len() > 2 * KEEP {
        let mut head = KEEP / 2;
        while !text.is_char_boundary(head) {
            head -= 1;
        }
        let mut tail = text.len() - KEEP;
        while !text.is_char_boundary(tail) {
            tail += 1;
        }
        text = format!("{} ... {}", &text[..head], &text[tail..]);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
