//! Loading and attaching.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read},
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, PerCpuValues, ProgramArray, RingBuf},
    programs::{Iter, Program},
    util::nr_cpus,
};
use observer_common::{
    AUDITED, CAPABILITY_KEYS, CHUNK, DENIAL_KEYS, EARLY_SLOTS, Host, NOTES, NS_NET, Offsets, STACKS, ability,
};

use super::{
    KernelError,
    abilities::Abilities,
    attach::{Attacher, Attachment, Hook, LOOK_INSIDE, Probe, SWEEP},
    audit_log::AuditLog,
    btf,
    calls::{Arming, CallTable},
    capabilities::CapabilityTable,
    features::{
        AUDIT_APPARMOR, AUDIT_CAPABILITIES, AUDIT_SECCOMP, AUDIT_SYSCALLS, CALL_BEGINS,
        CAPABILITIES_UNCLASSIFIED, FEATURES, Feature, SINGLE_BEGINNINGS, Tier,
    },
    maps::{LossCounters, SlotTable},
    pretend::Pretend,
    skipped::Skipped,
    tracefs::Tracefs,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer.bpf.o"));

/// What configuration chooses.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Bytes of the ordinary ring: a power of two of pages.
    pub events_bytes: u32,
    /// Bytes of the priority ring: a power of two of pages.
    pub priority_bytes: u32,
    pub pretend: Pretend,
    /// Count checks of capabilities.
    pub audit_capabilities: bool,
    /// Keep which calls containers make.
    pub audit_syscalls: bool,
    /// Count which of them seccomp refuses.
    pub audit_seccomp: bool,
    /// Read what AppArmor denies.
    pub audit_apparmor: bool,
}

impl LoadOptions {
    /// Whether the configuration asks for a feature.
    fn asks_for(&self, feature: &Feature) -> bool {
        match feature.asked_by {
            None => true,
            Some(AUDIT_CAPABILITIES) => self.audit_capabilities,
            Some(AUDIT_SYSCALLS) => self.audits_calls(),
            Some(AUDIT_SECCOMP) => self.audit_seccomp,
            Some(AUDIT_APPARMOR) => self.audit_apparmor,
            Some(_) => false,
        }
    }

    /// Whether ends of calls are looked at: who asks for refusals asks for that.
    fn audits_calls(&self) -> bool {
        self.audit_syscalls || self.audit_seccomp
    }

    /// What the kernel programs are told of this.
    fn wishes(&self) -> u64 {
        let calls = if self.audits_calls() { ability::AUDIT_CALLS } else { 0 };
        let seccomp = if self.audit_seccomp { ability::AUDIT_SECCOMP } else { 0 };
        calls | seccomp
    }
}

/// What became of one feature.
#[derive(Debug)]
pub struct FeatureStatus {
    pub feature: &'static Feature,
    /// The tier that serves it.
    pub tier: Option<&'static Tier>,
    /// Whether the configuration wants it; if not, no tier was tried.
    pub asked: bool,
    /// The tiers that would have been better, and why each of them was not to be had.
    pub refused: Vec<(&'static Tier, KernelError)>,
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
    _attached: Vec<Attachment>,
    /// The kernel empties this table when nobody holds it.
    _taken_over: Option<ProgramArray<MapData>>,
    audit_log: Option<AuditLog>,
    pub features: Vec<FeatureStatus>,
    pub offsets: Offsets,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("features", &self.features).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads the object file for this kernel and serves every feature by the best tier that can be had. A required
    /// feature that cannot be served is still only reported here: `check` wants to see all of them; `run` asks
    /// [`Kernel::require`].
    pub fn load(options: &LoadOptions) -> Result<Self, KernelError> {
        // All three read all of the kernel's types (the loader in vain: it is told of ours below), so at the same time.
        let (other, types) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let fields = btf::read_offsets(btf::VMLINUX.as_ref(), &options.pretend);
                (fields, EbpfLoader::new())
            });
            let types = Btf::from_sys_fs()
                .map_err(|error| KernelError::Btf { path: btf::VMLINUX.into(), what: chain(&error) });
            (other.join(), types)
        });
        let (fields, mut loader) = other.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let fields = fields?;
        let types = types?;
        let abilities = Abilities::find(&fields, &options.pretend)?;
        let pid_max = pid_max()?;
        let audited = |entries| if options.audits_calls() { entries } else { 1 };
        let refused = |entries| if options.audit_seccomp { entries } else { 1 };
        let bits = abilities.bits | options.wishes();
        loader
            .btf(Some(&types))
            .override_global("OFFSETS", &fields.offsets, true)
            .override_global("ABILITIES", &bits, true)
            .map_max_entries("TASKS", pid_max)
            .map_max_entries("TUPLES", pid_max)
            .map_max_entries("SEEN", if abilities.preemption.abilities() == 0 { 1 } else { NOTES })
            .map_max_entries("CAPABILITIES", if options.audit_capabilities { CAPABILITY_KEYS } else { 1 })
            .map_max_entries("PROCESSES", audited(pid_max.div_ceil(CHUNK as u32)))
            .map_max_entries("STACKS", audited(STACKS))
            .map_max_entries("CALLS", audited(AUDITED))
            .map_max_entries("CONTAINERS", audited(AUDITED))
            .map_max_entries("EARLY", audited(EARLY_SLOTS))
            .map_max_entries("INSIDE", refused(pid_max))
            .map_max_entries("DENIALS", refused(DENIAL_KEYS))
            .map_max_entries("EVENTS", options.events_bytes)
            .map_max_entries("PRIORITY", options.priority_bytes);
        let mut bpf = loader.load(OBJECT).map_err(|error| KernelError::Load(chain(&error)))?;
        wake_at(&mut bpf, u64::from(options.events_bytes) / 8)?;
        let over = bpf.take_map("OVER").and_then(|map| ProgramArray::try_from(map).ok());
        let attacher = Attacher::new(&mut bpf, &types, &options.pretend, &abilities);
        let (features, attached, over) = serve_all(attacher, over, &abilities, options);
        let mut kernel = Kernel {
            bpf,
            _taken_over: over,
            _attached: attached,
            audit_log: None,
            features,
            offsets: fields.offsets,
        };
        kernel.open_audit_log();
        Ok(kernel)
    }

    /// The one feature that no program serves: whether it can be had shows when the log is opened.
    fn open_audit_log(&mut self) {
        if self.tier(AUDIT_APPARMOR).is_none() {
            return;
        }
        let host = self.host();
        let opened = AuditLog::open().and_then(|log| {
            // Where the host is not known, nothing speaks against it.
            let deaf = host.ok().and_then(|host| log.is_deaf(host.inodes[NS_NET]));
            deaf.map_or(Ok(log), Err)
        });
        let status = self.features.iter_mut().find(|it| it.feature.asked_by == Some(AUDIT_APPARMOR));
        match (opened, status) {
            (Ok(log), _) => self.audit_log = Some(log),
            (Err(error), Some(status)) => {
                status.refused.extend(status.tier.take().map(|tier| (tier, error)));
            }
            (Err(_), None) => {}
        }
    }

    /// What AppArmor denies, as it comes; none if that is not asked for, or not to be had.
    pub fn audit_log(&mut self) -> Option<AuditLog> {
        self.audit_log.take()
    }

    /// Fails with the reason why the first required feature is not served.
    pub fn require(&mut self) -> Result<(), KernelError> {
        let missing = self.features.iter_mut().find(|it| it.feature.required && it.tier.is_none());
        match missing.and_then(|status| status.refused.pop()) {
            Some((_, error)) => Err(error),
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

    /// Of every attached program whose skipping means that something was not seen.
    pub fn skipped(&mut self) -> Result<Skipped, KernelError> {
        let name = "RESCUED";
        let rescued = self
            .bpf
            .take_map(name)
            .ok_or(KernelError::Map { name, what: "not in the object file".into() })?;
        let rescued =
            PerCpuArray::try_from(rescued).map_err(|error| KernelError::Map { name, what: chain(&error) })?;
        let probes = self.features.iter().filter_map(|status| status.tier).flat_map(|tier| tier.probes);
        // A program counts once for all its hooks.
        let counted = probes.filter(|it| it.has_second || it.hook == Hook::SyscallEntries);
        let counted: BTreeSet<&str> = counted.map(|it| it.program).collect();
        let descriptors = counted.into_iter().filter_map(|program| descriptor(self.bpf.program(program)?));
        Ok(Skipped::of(descriptors, rescued))
    }

    pub fn slots(&mut self) -> Result<SlotTable, KernelError> {
        SlotTable::new(&mut self.bpf)
    }

    /// The table of checks of capabilities; none if they are not counted.
    pub fn capabilities(&mut self) -> Result<Option<CapabilityTable>, KernelError> {
        let Some(tier) = self.tier(AUDIT_CAPABILITIES) else { return Ok(None) };
        CapabilityTable::new(&mut self.bpf, tier.name != CAPABILITIES_UNCLASSIFIED).map(Some)
    }

    /// The tables of the audit of calls; none if they are not audited.
    pub fn calls(&mut self) -> Result<Option<CallTable>, KernelError> {
        if self.tier(AUDIT_SYSCALLS).is_none() {
            return Ok(None);
        }
        let arming = match self.tier(AUDIT_SECCOMP) {
            Some(tier) if tier.name == SINGLE_BEGINNINGS => self.arming().transpose()?,
            Some(_) => Some(Arming::All),
            None => None,
        };
        CallTable::new(&mut self.bpf, arming).map(Some)
    }

    fn arming(&self) -> Option<Result<Arming, KernelError>> {
        let Program::TracePoint(program) = self.bpf.program(CALL_BEGINS)? else { return None };
        let program = program.fd().ok()?.as_fd().try_clone_to_owned();
        let program = program.map_err(|error| KernelError::Load(error.to_string()));
        // Its tier was refused where there is none.
        Some(program.and_then(|program| Ok(Arming::Single { program, tracefs: Tracefs::open(false)? })))
    }

    /// The tier that serves what a key asks for.
    fn tier(&self, key: &str) -> Option<&'static Tier> {
        self.features.iter().find(|it| it.feature.asked_by == Some(key)).and_then(|status| status.tier)
    }

    /// Notes who is inside the calls that are being armed. False if that cannot be known.
    pub fn look_inside(&mut self) -> bool {
        self.run(LOOK_INSIDE).is_ok()
    }

    pub fn losses(&mut self) -> Result<LossCounters, KernelError> {
        LossCounters::new(&mut self.bpf)
    }

    /// Looks at every thread there is; what is found comes by the rings. False if this kernel does not allow it.
    pub fn sweep(&mut self) -> bool {
        let is_sweep = |tier: &&Tier| tier.probes.iter().any(|probe| probe.program == SWEEP);
        let usable = self.features.iter().filter_map(|status| status.tier).any(|tier| is_sweep(&tier));
        usable && self.run(SWEEP).is_ok()
    }

    /// Runs an iterator over all tasks.
    fn run(&mut self, program: &str) -> Result<(), KernelError> {
        let fail = |what: String| KernelError::Probe {
            program: program.to_owned(),
            step: "run",
            hook: "iter/task".into(),
            what,
        };
        let program = self.bpf.program_mut(program).ok_or_else(|| fail("not in the object file".into()))?;
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

/// Serves every feature: all of them by their first tier at once, those that it cannot serve by their next.
fn serve_all(
    mut attacher: Attacher<'_>,
    mut over: Option<ProgramArray<MapData>>,
    abilities: &Abilities,
    options: &LoadOptions,
) -> (Vec<FeatureStatus>, Vec<Attachment>, Option<ProgramArray<MapData>>) {
    let functions_refused = attacher.functions_refused();
    let hopeless = |feature: &Feature, tier: &'static Tier, calls_end_unseen: bool| {
        if calls_end_unseen && feature.asked_by == Some(AUDIT_SECCOMP) {
            return Some(KernelError::Unable("the ends of calls are not seen: syscalls_used is off".into()));
        }
        let why = abilities.why(tier.abilities);
        if !why.is_empty() {
            return Some(KernelError::Unable(why));
        }
        let of_functions = tier.probes.iter().any(|probe| matches!(probe.hook, Hook::FunctionExit(_)));
        let refused = functions_refused.as_ref().filter(|_| of_functions)?;
        Some(KernelError::Unable(refused.clone()))
    };
    let status = |feature: &'static Feature| FeatureStatus {
        feature,
        tier: None,
        asked: options.asks_for(feature),
        refused: Vec::new(),
    };
    let mut statuses: Vec<FeatureStatus> = FEATURES.iter().map(status).collect();
    let mut attached = Vec::new();
    let mut calls_end_unseen = false;
    loop {
        // The next tier of each feature that has none yet.
        let mut trials: Vec<(usize, &'static Tier)> = Vec::new();
        // The program on the end of every call first: others' hooks depend on whether it is there.
        let is_over = |status: &FeatureStatus| status.feature.asked_by == Some(AUDIT_SYSCALLS);
        let first = over.is_some() && options.audits_calls();
        let open =
            |status: &FeatureStatus| status.asked && status.tier.is_none() && (!first || is_over(status));
        for (at, status) in statuses.iter_mut().enumerate().filter(|(_, status)| open(status)) {
            while let Some(tier) = status.feature.tiers.get(status.refused.len()) {
                match hopeless(status.feature, tier, calls_end_unseen) {
                    Some(error) => status.refused.push((tier, error)),
                    None => {
                        trials.push((at, tier));
                        break;
                    }
                }
            }
        }
        if trials.is_empty() {
            if first {
                // Refused: nothing to take over, and no denial to be told from its end.
                over = None;
                calls_end_unseen = true;
                continue;
            }
            return (statuses, attached, attacher.into_taken_over());
        }
        let probes: Vec<&'static Probe> = trials.iter().flat_map(|(_, tier)| tier.probes).collect();
        let mut results = attacher.attach_all(&probes).into_iter();
        for (at, tier) in trials {
            // All of a tier's hooks or none: what was attached in vain is dropped, and so detached.
            let whole: Result<Vec<Attachment>, KernelError> =
                results.by_ref().take(tier.probes.len()).collect::<Vec<_>>().into_iter().collect();
            match whole {
                Ok(links) => {
                    attached.extend(links);
                    statuses[at].tier = Some(tier);
                    if is_over(&statuses[at]) {
                        attacher.take_over(over.take());
                    }
                }
                Err(error) => statuses[at].refused.push((tier, error)),
            }
        }
    }
}

/// The descriptor of a loaded program.
fn descriptor(program: &Program) -> Option<i32> {
    let fd = match program {
        Program::BtfTracePoint(program) => program.fd(),
        Program::FExit(program) => program.fd(),
        Program::TracePoint(program) => program.fd(),
        // An iterator is not skipped.
        _ => return None,
    };
    fd.ok().map(|fd| fd.as_fd().as_raw_fd())
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
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // The library says so even where the verifier never came to a word.
    text.strip_suffix(". Verifier output:").unwrap_or(&text).to_owned()
}
