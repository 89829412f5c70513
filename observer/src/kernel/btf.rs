//! The running kernel's structure offsets, from its BTF.

use std::path::Path;

use btf_rs::{Btf, BtfType, Type};
use observer_common::{OFFSET_SOURCES, Offsets};

use super::KernelError;

/// Where the kernel shows its own types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Resolves every entry of the offset table. Any field that this kernel lacks is an error that names it.
pub fn read_offsets(path: &Path) -> Result<Offsets, KernelError> {
    let btf = Btf::from_file(path)
        .map_err(|source| KernelError::Btf { path: path.into(), what: source.to_string() })?;
    let mut numbers = Vec::with_capacity(OFFSET_SOURCES.len());
    let mut missing = Vec::new();
    for (_, sources) in OFFSET_SOURCES {
        let mut sum = 0;
        for source in *sources {
            match resolve(&btf, source) {
                Some(number) => sum += number,
                None => missing.push((*source).to_owned()),
            }
        }
        numbers.push(sum);
    }
    if !missing.is_empty() {
        return Err(KernelError::MissingFields(missing));
    }
    let mut offsets = Offsets::default();
    assert_eq!(size_of::<Offsets>(), numbers.len() * size_of::<u64>(), "one number per field, by the macro");
    // SAFETY: `Offsets` is `repr(C)` and made of u64 only, as many as there are numbers.
    unsafe {
        std::ptr::copy_nonoverlapping(numbers.as_ptr(), (&raw mut offsets).cast::<u64>(), numbers.len());
    }
    Ok(offsets)
}

/// One source of the table: `struct.member`, `sizeof struct` or `enum name.enumerator`.
fn resolve(btf: &Btf, source: &str) -> Option<u64> {
    if let Some(name) = source.strip_prefix("sizeof ") {
        return btf.resolve_types_by_name(name).ok()?.iter().find_map(|t| match t {
            Type::Struct(s) => Some(s.size() as u64),
            _ => None,
        });
    }
    let (is_enum, path) = match source.strip_prefix("enum ") {
        Some(path) => (true, path),
        None => (false, source),
    };
    let (owner, member) = path.split_once('.')?;
    btf.resolve_types_by_name(owner).ok()?.iter().find_map(|t| match t {
        Type::Struct(s) if !is_enum => member_offset(btf, &s.members, member, 0),
        Type::Enum(e) if is_enum => e
            .members
            .iter()
            .find(|m| btf.resolve_name(*m).is_ok_and(|name| name == member))
            .map(|m| u64::from(m.val())),
        _ => None,
    })
}

/// A member by name, looking into anonymous structs and unions (randomised layouts, `struct_group`).
fn member_offset(btf: &Btf, members: &[btf_rs::Member], name: &str, base: u64) -> Option<u64> {
    for member in members {
        let at = base + u64::from(member.bit_offset()) / 8;
        match btf.resolve_name(member) {
            Ok(found) if found == name => return Some(at),
            Ok(found) if !found.is_empty() => {}
            _ => {
                let inner = member.get_type_id().and_then(|id| btf.resolve_type_by_id(id).ok());
                if let Some(Type::Struct(inner) | Type::Union(inner)) = inner
                    && let Some(at) = member_offset(btf, &inner.members, name, at)
                {
                    return Some(at);
                }
            }
        }
    }
    None
}
