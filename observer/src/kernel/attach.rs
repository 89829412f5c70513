//! Places in the kernel where programs run, and how a program gets there.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Btf, Ebpf,
    maps::{MapData, ProgramArray},
    programs::{FExit, Program, ProgramError, fexit::FExitLink, tp_btf::BtfTracePointLink},
};

use observer_common::TAKEN_OVER;

use super::{
    KernelError,
    abilities::Abilities,
    load::chain,
    pretend::Pretend,
    skipped::Preemption,
    tracefs::{self, Tracefs},
};

/// The program of the sweep.
pub const SWEEP: &str = "sweep_tasks";

/// The program that looks which calls tasks are in.
pub const LOOK_INSIDE: &str = "look_inside";

/// A place in the kernel where a program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A raw tracepoint with typed arguments.
    TpBtf(&'static str),
    /// `syscalls:sys_exit_NAME`.
    SyscallExit(&'static str),
    /// `syscalls:sys_enter_NAME` of calls that are chosen while the agent runs.
    SyscallEntries,
    /// Where a function returns, by a trampoline.
    FunctionExit(&'static str),
    /// Not a hook but a look at every object of a kind, when read.
    Iterator(&'static str),
}

impl Hook {
    /// The type of program, as `pretend_without` names it.
    pub fn program_type(self) -> &'static str {
        match self {
            Hook::TpBtf(_) => "tp_btf",
            Hook::SyscallExit(_) | Hook::SyscallEntries => "tracepoint",
            Hook::FunctionExit(_) => "fexit",
            Hook::Iterator(_) => "iter",
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hook::SyscallExit(name) => write!(f, "tracepoint/syscalls/sys_exit_{name}"),
            Hook::SyscallEntries => f.write_str("tracepoint/syscalls/sys_enter_*"),
            Hook::TpBtf(name) | Hook::FunctionExit(name) | Hook::Iterator(name) => {
                write!(f, "{}/{name}", self.program_type())
            }
        }
    }
}

/// One program and its place.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The program's name in the object file.
    pub program: &'static str,
    pub hook: Hook,
    /// The kernel function that it was matched with, and its file.
    pub source: &'static str,
    /// Whether there is a program that does what this one is skipped for.
    pub has_second: bool,
}

impl Probe {
    pub fn second(&self) -> String {
        format!("{}_again", self.program)
    }
}

/// Keeps a program where it is until dropped.
#[expect(dead_code, reason = "held, never looked at")]
pub enum Attachment {
    TpBtf(BtfTracePointLink),
    Function(FExitLink),
    Event(OwnedFd),
    /// An iterator runs when it is read; what is to be attached later is only loaded.
    None,
    /// Two programs on one hook.
    Twice(Box<(Attachment, Attachment)>),
}

/// A program that does nothing, to see whether trampolines are allowed before larger ones are verified in vain; and the
/// function that it names.
const TRIAL: (&str, &str) = ("fexit_trial", "__x64_sys_unshare");

/// Attaches programs of one object.
pub struct Attacher<'a> {
    /// By name. One may go to several hooks: it is loaded for the first of them.
    programs: HashMap<String, Mutex<&'a mut Program>>,
    btf: &'a Btf,
    tracefs: Result<Tracefs, KernelError>,
    pretend: &'a Pretend,
    preemption: Preemption,
    /// Programs that the program on the end of every call runs, once that is there. Not where that could be preempted, and so
    /// skipped for others.
    taken_over: Option<Mutex<ProgramArray<MapData>>>,
}

impl<'a> Attacher<'a> {
    pub fn new(bpf: &'a mut Ebpf, btf: &'a Btf, pretend: &'a Pretend, abilities: &Abilities) -> Self {
        let programs = bpf.programs_mut().map(|(name, program)| (name.to_owned(), Mutex::new(program)));
        Attacher {
            programs: programs.collect(),
            btf,
            tracefs: Tracefs::open(abilities.confidential),
            pretend,
            preemption: abilities.preemption,
            taken_over: None,
        }
    }

    /// There is a program on the end of every call: it runs those of watched calls from now on.
    pub fn take_over(&mut self, programs: Option<ProgramArray<MapData>>) {
        let skipped = self.preemption.skips(Hook::TpBtf("sys_exit"));
        self.taken_over = programs.filter(|_| !skipped).map(Mutex::new);
    }

    /// What [`Attacher::take_over`] was given, if it was made use of.
    pub fn into_taken_over(self) -> Option<ProgramArray<MapData>> {
        self.taken_over.map(|programs| programs.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why functions cannot be hooked here, if they cannot.
    pub fn functions_refused(&self) -> Option<String> {
        let (program, function) = TRIAL;
        let hook = Hook::FunctionExit(function);
        if let Some(pretended) = self.pretend.hook(hook) {
            return Some(pretended);
        }
        let mut program = self.program(program)?;
        // Loaded only: to attach it, and take it away again, takes the kernel longer than all the rest.
        let loaded =
            <&mut FExit>::try_from(&mut **program).and_then(|program| program.load(function, self.btf));
        loaded.err().map(|error| format!("{hook} is refused: {}", chain(&error)))
    }

    fn program(&self, name: &str) -> Option<MutexGuard<'_, &'a mut Program>> {
        Some(self.programs.get(name)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Attaches all of them; the results are in their order. The verifier is what takes the time, and it works for
    /// several threads at once.
    pub fn attach_all(&self, probes: &[&'static Probe]) -> Vec<Result<Attachment, KernelError>> {
        let todo = Mutex::new(probes.iter().enumerate());
        let done = Mutex::new(Vec::with_capacity(probes.len()));
        let work = || {
            loop {
                // Taken in a statement of its own, so that the lock is not held during the work.
                let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((at, probe)) = next else { return };
                let result = self.attach(probe);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(probes.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// Loads and attaches one, and its second where this kernel may skip it.
    fn attach(&self, probe: &'static Probe) -> Result<Attachment, KernelError> {
        if !self.preemption.skips(probe.hook) || !probe.has_second {
            return self.attach_program(probe.program, probe);
        }
        let second = || self.attach_program(&probe.second(), probe);
        let first = || self.attach_program(probe.program, probe);
        // The second must run after the first. A tracepoint runs what was attached first (func_add,
        // kernel/tracepoint.c), a trampoline what was attached last (__bpf_trampoline_link_prog,
        // kernel/bpf/trampoline.c).
        let both = if matches!(probe.hook, Hook::FunctionExit(_)) {
            second().and_then(|second| Ok((second, first()?)))
        } else {
            first().and_then(|first| Ok((first, second()?)))
        };
        both.map(|both| Attachment::Twice(Box::new(both)))
    }

    /// Loads a program, if it was not for another of its hooks, and attaches it.
    fn attach_program(&self, name: &str, probe: &'static Probe) -> Result<Attachment, KernelError> {
        let fail = |step: &'static str, what: String| KernelError::Probe {
            program: name.to_owned(),
            step,
            hook: probe.hook.to_string(),
            what,
        };
        let loading = |error: ProgramError| fail("loaded", chain(&error));
        let attaching = |error: ProgramError| fail("attached", chain(&error));
        let unlisted = |error: &KernelError| fail("attached", error.to_string());
        let find = |name: &str| {
            self.program(name).ok_or_else(|| fail("found", "the object file has no such program".into()))
        };
        let load = |program: &mut Program| {
            if program.fd().is_ok() {
                return Ok(());
            }
            match (program, probe.hook) {
                (Program::BtfTracePoint(program), Hook::TpBtf(name)) => program.load(name, self.btf),
                // See `take_over`.
                (Program::BtfTracePoint(program), Hook::SyscallExit(_)) => program.load("sys_exit", self.btf),
                (Program::FExit(program), Hook::FunctionExit(name)) => program.load(name, self.btf),
                (Program::Iter(program), Hook::Iterator(name)) => program.load(name, self.btf),
                (Program::TracePoint(program), Hook::SyscallExit(_) | Hook::SyscallEntries) => program.load(),
                _ => Err(ProgramError::UnexpectedProgramType),
            }
        };
        if let Some(pretended) = self.pretend.hook(probe.hook) {
            return Err(fail("attached", pretended));
        }
        if let (Hook::SyscallExit(call), Some(table)) = (probe.hook, &self.taken_over)
            && let Some(short) = name.strip_prefix("exit_")
            && let Some(place) = TAKEN_OVER.iter().position(|(_, of, over)| (*of, *over) == (call, short))
        {
            let mut program = find(&format!("over_{short}"))?;
            load(&mut program).map_err(loading)?;
            let fd = program.fd().map_err(attaching)?;
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.set(place as u32, fd, 0).map_err(|e| fail("attached", chain(&e)))?;
            return Ok(Attachment::None);
        }
        // Looked for first: verifying a program is dear where its hook is missing.
        let event = match probe.hook {
            Hook::SyscallExit(call) => {
                let id = self.tracefs().map_err(unlisted)?.event_id("syscalls", &format!("sys_exit_{call}"));
                Some(id.map_err(|e| fail("attached", e.to_string()))?)
            }
            Hook::SyscallEntries => {
                self.tracefs().map_err(unlisted)?;
                None
            }
            _ => None,
        };
        let mut program = find(name)?;
        load(&mut program).map_err(loading)?;
        match (&mut **program, probe.hook) {
            (Program::BtfTracePoint(program), _) => {
                let link = program.attach().map_err(attaching)?;
                program.take_link(link).map(Attachment::TpBtf).map_err(attaching)
            }
            (Program::FExit(program), _) => {
                let link = program.attach().map_err(attaching)?;
                program.take_link(link).map(Attachment::Function).map_err(attaching)
            }
            (Program::TracePoint(program), _) => match event {
                Some(event) => {
                    let fd = program.fd().map_err(attaching)?;
                    let attached = tracefs::attach(fd.as_fd(), event);
                    attached.map(Attachment::Event).map_err(|e| fail("attached", e.to_string()))
                }
                // Attached later.
                None => Ok(Attachment::None),
            },
            // Run when it is asked for.
            _ => Ok(Attachment::None),
        }
    }

    fn tracefs(&self) -> Result<&Tracefs, &KernelError> {
        self.tracefs.as_ref()
    }
}
