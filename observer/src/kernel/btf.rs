//! The running kernel's structure offsets, from its BTF (Documentation/bpf/btf.rst).
//!
//! A reader of our own, because it stands between the start and the first event: it makes one pass over the types
//! and keeps only where each begins (10 ms), where a general library parses all 100,000 of them (70 ms and more).

use std::{collections::HashMap, path::Path};

use observer_common::{OFFSET_SOURCES, Offsets};

use super::{KernelError, pretend::Pretend};

/// Where the kernel shows its own types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offset table as far as this kernel has it.
#[derive(Debug)]
pub struct Resolved {
    /// 0 where the kernel lacks the field.
    pub offsets: Offsets,
    /// What it lacks, with the ability that goes with it.
    pub missing: Vec<(u64, String)>,
}

/// Resolves every entry of the offset table.
pub fn read_offsets(path: &Path, pretend: &Pretend) -> Result<Resolved, KernelError> {
    let bytes = std::fs::read(path).map_err(|source| KernelError::Read { path: path.into(), source })?;
    let btf = Types::parse(&bytes).ok_or_else(|| KernelError::Btf {
        path: path.into(),
        what: "not BTF of a format known here, or cut off".into(),
    })?;
    let mut numbers = Vec::with_capacity(OFFSET_SOURCES.len());
    let mut missing = Vec::new();
    for source in OFFSET_SOURCES {
        let mut sum = 0;
        for path in source.paths {
            match btf.resolve(path).filter(|_| !pretend.field(path)) {
                Some(number) => sum += number,
                None => missing.push((source.ability, (*path).to_owned())),
            }
        }
        numbers.push(sum);
    }
    missing.dedup();
    let mut offsets = Offsets::default();
    assert_eq!(size_of::<Offsets>(), numbers.len() * size_of::<u64>(), "one number per field, by the macro");
    // SAFETY: `Offsets` is `repr(C)` and made of u64 only, as many as there are numbers.
    unsafe {
        std::ptr::copy_nonoverlapping(numbers.as_ptr(), (&raw mut offsets).cast::<u64>(), numbers.len());
    }
    Ok(Resolved { offsets, missing })
}

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// The type section, with the place of every type and the names of those that the table asks for.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Byte offset of each type; id 0 is void and has none.
    places: Vec<u32>,
    by_name: HashMap<&'a str, Vec<u32>>,
}

/// The twelve bytes every type begins with.
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    kind: u32,
    members: u32,
    /// `kind_flag`: member offsets carry a bit-field size in their top byte.
    flag: bool,
    size: u32,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header + word(bytes, at)? as usize;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let mut types =
            Types { types: section(8)?, strings: section(16)?, places: vec![0], by_name: HashMap::new() };
        let wanted: std::collections::HashSet<&str> =
            OFFSET_SOURCES.iter().flat_map(|source| source.paths).map(|path| owner(path)).collect();
        let mut at = 0;
        while at < types.types.len() {
            let head = types.head_at(at)?;
            let id = types.places.len() as u32;
            types.places.push(at as u32);
            if matches!(head.kind, KIND_STRUCT | KIND_ENUM | KIND_TYPEDEF)
                && let Some(name) = wanted.get(types.name(head.name))
            {
                types.by_name.entry(name).or_default().push(id);
            }
            at += 12 + head.tail();
        }
        Some(types)
    }

    fn head_at(&self, at: usize) -> Option<Head> {
        let info = word(self.types, at + 4)?;
        Some(Head {
            name: word(self.types, at)?,
            kind: info >> 24 & 0x1f,
            members: info & 0xffff,
            flag: info >> 31 != 0,
            size: word(self.types, at + 8)?,
        })
    }

    fn name(&self, at: u32) -> &'a str {
        let bytes = self.strings.get(at as usize..).unwrap_or_default();
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(0);
        std::str::from_utf8(&bytes[..end]).unwrap_or("")
    }

    /// One source of the table: see `OffsetSource::paths`.
    fn resolve(&self, source: &str) -> Option<u64> {
        self.by_name.get(owner(source))?.iter().find_map(|id| {
            let (at, head) = self.head(*id)?;
            let (source, of) =
                source.split_once(" of ").map_or((source, None), |(source, of)| (source, Some(of)));
            let member = || source.rsplit_once('.').map(|(_, member)| member);
            if source.starts_with("argument ") {
                (head.kind == KIND_TYPEDEF).then(|| self.first_argument_is(head, of?)).flatten()
            } else if source.starts_with("sizeof ") {
                (head.kind == KIND_STRUCT).then_some(u64::from(head.size))
            } else if source.starts_with("enum ") {
                (head.kind == KIND_ENUM).then(|| self.enumerator(at, head, member()?)).flatten()
            } else {
                let (here, id) =
                    (head.kind == KIND_STRUCT).then(|| self.member(at, head, member()?, 0)).flatten()?;
                of.is_none_or(|of| self.is_made_of(id, of)).then_some(here)
            }
        })
    }

    fn head(&self, id: u32) -> Option<(usize, Head)> {
        let at = *self.places.get(id as usize).filter(|_| id != 0)? as usize;
        Some((at, self.head_at(at)?))
    }

    /// 0 if it is so. The type is a tracepoint's: a pointer to a function whose very first argument is the tracepoint's own.
    fn first_argument_is(&self, typedef: Head, of: &str) -> Option<u64> {
        let (_, pointer) = self.head(typedef.size).filter(|(_, head)| head.kind == KIND_PTR)?;
        let (at, function) = self.head(pointer.size).filter(|(_, head)| head.kind == KIND_FUNC_PROTO)?;
        let argument = (function.members > 1).then(|| word(self.types, at + 12 + 8 + 4)).flatten()?;
        self.is_made_of(argument, of).then_some(0)
    }

    /// Whether a type is the named one, an array of it, or a pointer to it.
    fn is_made_of(&self, mut id: u32, of: &str) -> bool {
        const DEEPEST: u32 = 8;
        for _ in 0..DEEPEST {
            let Some((at, head)) = self.head(id) else { return false };
            if self.name(head.name) == of {
                return true;
            }
            id = match head.kind {
                KIND_PTR | KIND_VOLATILE | KIND_CONST => head.size,
                KIND_ARRAY => word(self.types, at + 12).unwrap_or(0),
                _ => return false,
            };
        }
        false
    }

    fn enumerator(&self, at: usize, head: Head, wanted: &str) -> Option<u64> {
        (0..head.members as usize).find_map(|i| {
            let entry = at + 12 + i * 8;
            (self.name(word(self.types, entry)?) == wanted)
                .then(|| word(self.types, entry + 4).map(u64::from))?
        })
    }

    /// A member by name, its place in bytes and its type, looking into anonymous structures and unions (`struct_group`, randomised layouts).
    fn member(&self, at: usize, head: Head, wanted: &str, depth: u32) -> Option<(u64, u32)> {
        const DEEPEST: u32 = 8;
        (0..head.members as usize).find_map(|i| {
            let entry = at + 12 + i * 12;
            let (name, id, bits) =
                (word(self.types, entry)?, word(self.types, entry + 4)?, word(self.types, entry + 8)?);
            let bits = if head.flag { bits & 0x00ff_ffff } else { bits };
            let here = u64::from(bits) / 8;
            match self.name(name) {
                found if found == wanted => Some((here, id)),
                "" if depth < DEEPEST => {
                    let inner = *self.places.get(id as usize)? as usize;
                    let head = self.head_at(inner).filter(|h| matches!(h.kind, KIND_STRUCT | KIND_UNION))?;
                    let (further, id) = self.member(inner, head, wanted, depth + 1)?;
                    Some((here + further, id))
                }
                _ => None,
            }
        })
    }
}

impl Head {
    /// Bytes behind the head.
    fn tail(&self) -> usize {
        let members = self.members as usize;
        match self.kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => members * 12,
            KIND_ENUM | KIND_FUNC_PROTO => members * 8,
            _ => 0,
        }
    }
}

/// The type that a source names.
fn owner(source: &str) -> &str {
    let prefixes = ["sizeof ", "enum ", "argument "];
    let path = prefixes.iter().find_map(|prefix| source.strip_prefix(prefix)).unwrap_or(source);
    path.split(['.', ' ']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use observer_common::ability;

    use super::*;

    #[test]
    fn this_kernel_has_every_field_and_they_make_sense() {
        let Resolved { offsets, missing } =
            read_offsets(Path::new(VMLINUX), &Pretend::default()).expect("a kernel with BTF");
        // Some things there are in one of two ways.
        let lacks = |ability| missing.iter().any(|(missing, _)| *missing == ability);
        for (one, other) in
            [(ability::VICTIM_TASK, ability::VICTIM_ID), (ability::RESIDENT, ability::RESIDENT_PLAIN)]
        {
            assert_ne!(lacks(one), lacks(other), "{missing:?}");
        }
        let either = ability::VICTIM_TASK | ability::VICTIM_ID | ability::RESIDENT | ability::RESIDENT_PLAIN;
        assert!(missing.iter().all(|(ability, _)| ability & either != 0), "{missing:?}");
        // pid and tgid are neighbours in every task_struct there ever was.
        assert_eq!(offsets.task_tgid, offsets.task_pid + 4);
        assert_eq!(offsets.upid_size, 16);
        assert_ne!(offsets.pids_subsys, offsets.memory_subsys);
    }

    #[test]
    fn a_hidden_field_is_missing_with_its_ability() {
        let pretend = Pretend::without(&["field:nsproxy.time_ns".to_owned()]);
        let Resolved { offsets, missing } = read_offsets(Path::new(VMLINUX), &pretend).unwrap();
        assert!(missing.contains(&(ability::TIME_NAMESPACE, "nsproxy.time_ns".to_owned())), "{missing:?}");
        assert_eq!(offsets.nsproxy_time, 0);
    }

    #[test]
    fn cut_or_wrong_files_are_errors() {
        let bytes = std::fs::read(VMLINUX).unwrap();
        for cut in [0, 1, 23, 24, 1000] {
            assert!(Types::parse(&bytes[..cut]).is_none(), "{cut}");
        }
        assert!(Types::parse(b"not BTF at all, only text").is_none());
    }

    #[test]
    fn sources_name_their_owner() {
        assert_eq!(owner("task_struct.pid"), "task_struct");
        assert_eq!(owner("sizeof upid"), "upid");
        assert_eq!(owner("enum cgroup_subsys_id.pids_cgrp_id"), "cgroup_subsys_id");
        assert_eq!(owner("mm_struct.rss_stat of percpu_counter"), "mm_struct");
        assert_eq!(owner("argument btf_trace_mark_victim of int"), "btf_trace_mark_victim");
    }

    #[test]
    fn a_type_that_matters_is_looked_at() {
        let bytes = std::fs::read(VMLINUX).unwrap();
        let types = Types::parse(&bytes).unwrap();
        let number = types.resolve("pid_namespace.ns of ns_common");
        assert_eq!(number, types.resolve("pid_namespace.ns"));
        assert!(number.is_some());
        // An array, and a pointer.
        assert!(types.resolve("pid.numbers of upid").is_some());
        assert!(types.resolve("task_struct.cred of cred").is_some());
        for wrong in ["pid_namespace.ns of upid", "task_struct.cred of int", "task_struct.pid of task_struct"]
        {
            assert_eq!(types.resolve(wrong), None, "{wrong}");
        }
        assert_eq!(types.resolve("argument btf_trace_mark_victim of pid_namespace"), None);
    }
}
