//! Places in the kernel where programs run, and how a program gets there.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use aya::{
    Btf, Ebpf,
    maps::{MapData, ProgramArray},
    programs::{
        BtfTracePoint, FExit, Iter, Program, TracePoint, fexit::FExitLink, tp_btf::BtfTracePointLink,
    },
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
    programs: Mutex<HashMap<String, &'a mut Program>>,
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
        let programs = bpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
        Attacher {
            programs: Mutex::new(programs),
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
        let program = self.take(program)?;
        // Loaded only: to attach it, and take it away again, takes the kernel longer than all the rest.
        let loaded = <&mut FExit>::try_from(program).and_then(|program| program.load(function, self.btf));
        loaded.err().map(|error| format!("{hook} is refused: {}", chain(&error)))
    }

    fn take(&self, program: &str) -> Option<&'a mut Program> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).remove(program)
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

    fn attach_program(&self, program: &str, probe: &'static Probe) -> Result<Attachment, KernelError> {
        let fail = |step: &'static str, what: String| KernelError::Probe {
            program: program.to_owned(),
            step,
            hook: probe.hook.to_string(),
            what,
        };
        if let Some(pretended) = self.pretend.hook(probe.hook) {
            return Err(fail("attached", pretended));
        }
        if let (Hook::SyscallExit(_), Some(programs)) = (probe.hook, &self.taken_over)
            && let Some(name) = program.strip_prefix("exit_")
            && let Some(place) = TAKEN_OVER.iter().position(|(_, over)| *over == name)
        {
            let program = self.take(&format!("over_{name}"));
            let program =
                program.ok_or_else(|| fail("found", "the object file has no such program".into()))?;
            let program: &mut BtfTracePoint = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
            program.load("sys_exit", self.btf).map_err(|e| fail("loaded", chain(&e)))?;
            let fd = program.fd().map_err(|e| fail("attached", chain(&e)))?;
            let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
            programs.set(place as u32, fd, 0).map_err(|e| fail("attached", chain(&e)))?;
            return Ok(Attachment::None);
        }
        let program =
            self.take(program).ok_or_else(|| fail("found", "the object file has no such program".into()))?;
        match probe.hook {
            Hook::TpBtf(name) => {
                let program: &mut BtfTracePoint =
                    program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
                program.load(name, self.btf).map_err(|e| fail("loaded", chain(&e)))?;
                let link = program.attach().map_err(|e| fail("attached", chain(&e)))?;
                program.take_link(link).map(Attachment::TpBtf).map_err(|e| fail("attached", chain(&e)))
            }
            Hook::FunctionExit(name) => {
                let program: &mut FExit = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
                program.load(name, self.btf).map_err(|e| fail("loaded", chain(&e)))?;
                let link = program.attach().map_err(|e| fail("attached", chain(&e)))?;
                program.take_link(link).map(Attachment::Function).map_err(|e| fail("attached", chain(&e)))
            }
            Hook::Iterator(name) => {
                let program: &mut Iter = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
                program.load(name, self.btf).map_err(|e| fail("loaded", chain(&e)))?;
                Ok(Attachment::None)
            }
            Hook::SyscallEntries => {
                // Whether there is something to attach it to later.
                self.tracefs.as_ref().map_err(|e| fail("attached", e.to_string()))?;
                let program: &mut TracePoint = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
                program.load().map_err(|e| fail("loaded", chain(&e)))?;
                Ok(Attachment::None)
            }
            Hook::SyscallExit(name) => {
                let tracefs = self.tracefs.as_ref().map_err(|e| fail("attached", e.to_string()))?;
                // Looked for first: verifying a program is dear where its hook is missing.
                let id = tracefs
                    .event_id("syscalls", &format!("sys_exit_{name}"))
                    .map_err(|e| fail("attached", e.to_string()))?;
                let program: &mut TracePoint = program.try_into().map_err(|e| fail("loaded", chain(&e)))?;
                program.load().map_err(|e| fail("loaded", chain(&e)))?;
                let fd = program.fd().map_err(|e| fail("attached", chain(&e)))?;
                tracefs::attach(fd.as_fd(), id)
                    .map(Attachment::Event)
                    .map_err(|e| fail("attached", e.to_string()))
            }
        }
    }
}
