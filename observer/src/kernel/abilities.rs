//! What the kernel programs can make use of on this kernel.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use observer_common::{OFFSET_SOURCES, ability};

use super::{KernelError, btf::Resolved, pretend::Pretend, skipped::Preemption};

/// The bits for the kernel programs, and for each missing one the reason.
#[derive(Clone, Debug)]
pub struct Abilities {
    pub bits: u64,
    /// The kernel keeps its memory to itself: lockdown=confidentiality.
    pub confidential: bool,
    pub preemption: Preemption,
    missing: Vec<(u64, String)>,
}

/// A helper, what it is needed for, and its name.
const HELPERS: [(BpfHelper, u64, &str); 4] = [
    (BpfHelper::BPF_FUNC_get_current_task_btf, ability::TYPED_LOADS, "bpf_get_current_task_btf"),
    (BpfHelper::BPF_FUNC_probe_read_kernel, ability::READ_KERNEL, "bpf_probe_read_kernel"),
    (BpfHelper::BPF_FUNC_probe_read_user, ability::READ_USER, "bpf_probe_read_user"),
    (BpfHelper::BPF_FUNC_task_pt_regs, ability::TASK_REGS, "bpf_task_pt_regs"),
];

impl Abilities {
    /// From the fields that the kernel has and the helpers that it allows.
    pub fn find(fields: &Resolved, pretend: &Pretend) -> Result<Self, KernelError> {
        let mut found = Abilities {
            bits: 0,
            confidential: false,
            preemption: Preemption::of_this_kernel(),
            missing: Vec::new(),
        };
        for source in OFFSET_SOURCES {
            found.bits |= source.ability;
        }
        found.bits |= found.preemption.abilities();
        for (ability, field) in &fields.missing {
            found.lacks(*ability, format!("this kernel has no {field}"));
        }
        for (helper, ability, name) in HELPERS {
            // A kernel that does not let us ask lets nothing else be loaded either; that tells why.
            let allowed = is_helper_supported(ProgramType::TracePoint, helper).unwrap_or(true);
            found.confidential |= ability == ability::READ_KERNEL && !allowed;
            if allowed && !pretend.helper(name) {
                found.bits |= ability;
            } else {
                found.lacks(ability, format!("this kernel does not allow {name}"));
            }
        }
        if found.confidential {
            // aya takes a kernel that refuses bpf_probe_read_kernel for one older than that helper (5.5), and puts
            // bpf_probe_read in the place of both, which is refused as well.
            found.lacks(ability::READ_USER, found.why(ability::READ_KERNEL));
        }
        if found.bits & ability::READ_KERNEL == 0 {
            let why = found.why(ability::READ_KERNEL);
            for dependent in [
                ability::PID_NAMESPACE,
                ability::ROOT_MOUNT,
                ability::ROOT_PATH,
                ability::STACK_REGS,
                ability::RESIDENT,
                ability::RESIDENT_PLAIN,
                ability::MEMORY_LIMITS,
                ability::PIDS_LIMITS,
            ] {
                found.lacks(dependent, why.clone());
            }
        }
        if found.bits & ability::TYPED_LOADS == 0 {
            // It takes a typed pointer only.
            found.lacks(ability::TASK_REGS, found.why(ability::TYPED_LOADS));
        }
        match late_events() {
            Ok(()) => found.bits |= ability::LATE_EVENTS,
            Err(why) => found.lacks(ability::LATE_EVENTS, why),
        }
        if found.bits & ability::CORE == 0 {
            let core = fields.missing.iter().filter(|(ability, _)| *ability == ability::CORE);
            return Err(KernelError::MissingFields(core.map(|(_, field)| field.clone()).collect()));
        }
        if found.bits & (ability::READ_KERNEL | ability::TYPED_LOADS) == 0 {
            return Err(KernelError::CannotRead(found.why(ability::READ_KERNEL | ability::TYPED_LOADS)));
        }
        Ok(found)
    }

    fn lacks(&mut self, ability: u64, why: String) {
        self.bits &= !ability;
        self.missing.push((ability, why));
    }

    /// Why these abilities are not all there; empty if they are.
    pub fn why(&self, abilities: u64) -> String {
        let mut reasons: Vec<&str> = Vec::new();
        for (ability, why) in &self.missing {
            if ability & abilities != 0 && !reasons.contains(&why.as_str()) {
                reasons.push(why);
            }
        }
        reasons.join("; ")
    }
}

/// Whether CAP_PERFMON is enough for `perf_event_open`. Above this level, which Debian's and Ubuntu's kernels have of their own
/// (security/Kconfig, SECURITY_PERF_EVENTS_RESTRICT), they ask for CAP_SYS_ADMIN, which the agent does not keep.
fn late_events() -> Result<(), String> {
    const HIGHEST: i32 = 2;
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    match level.trim().parse::<i32>() {
        Ok(level) if level > HIGHEST => {
            Err(format!("kernel.perf_event_paranoid is {level}: an event may take more than CAP_PERFMON"))
        }
        _ => Ok(()),
    }
}
