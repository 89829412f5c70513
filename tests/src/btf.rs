//! Where the running kernel keeps the members of its structures, from its own types (Documentation/bpf/btf.rst).
//!
//! Not the agent's reader: what plays the exploit must not share a mistake with what is to find it.

use std::collections::HashMap;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_STRUCT: u32 = 4;

/// The kernel's structures: the byte offsets of their named members.
#[derive(Debug)]
pub struct Structs {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where in the types each of the wanted structures is described.
    places: HashMap<&'static str, usize>,
}

impl Structs {
    /// Reads the kernel's types, and keeps where these structures are.
    pub fn read(wanted: &[&'static str]) -> Self {
        let bytes = std::fs::read(VMLINUX).unwrap_or_else(|e| panic!("{VMLINUX}: {e}"));
        let header = number(&bytes, 4);
        let section = |at| bytes[header + number(&bytes, at)..][..number(&bytes, at + 4)].to_vec();
        let mut structs = Self { types: section(8), strings: section(16), places: HashMap::new() };
        let mut at = 0;
        while at < structs.types.len() {
            let (kind, members, _) = structs.info(at);
            if kind == KIND_STRUCT
                && let Some(name) = wanted.iter().find(|name| structs.is_called(at, name))
            {
                structs.places.insert(name, at);
            }
            at += 12 + behind(kind, members);
        }
        structs
    }

    /// The offset of one member, in bytes.
    pub fn offset(&self, of: &str, member: &str) -> u64 {
        let place = *self.places.get(of).unwrap_or_else(|| panic!("this kernel has no struct {of}"));
        let (_, members, sized) = self.info(place);
        let member = (0..members)
            .map(|i| place + 12 + i * 12)
            .find(|entry| self.is_called(*entry, member))
            .unwrap_or_else(|| panic!("struct {of} has no {member}"));
        // Where the structure has bit fields, the top byte is a width.
        let bits = number(&self.types, member + 8) & if sized { 0x00ff_ffff } else { usize::MAX };
        (bits / 8) as u64
    }

    /// Kind, number of members, and whether their offsets carry widths.
    fn info(&self, at: usize) -> (u32, usize, bool) {
        let info = number(&self.types, at + 4) as u32;
        (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 != 0)
    }

    /// Types and members alike begin with their name.
    fn is_called(&self, at: usize, name: &str) -> bool {
        let called = &self.strings[number(&self.types, at)..];
        called.starts_with(name.as_bytes()) && called.get(name.len()) == Some(&0)
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// How many bytes a type has behind its first twelve.
fn behind(kind: u32, members: usize) -> usize {
    match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => members * 12,
        // ENUM, FUNC_PROTO
        6 | 13 => members * 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_where_they_have_always_been() {
        let structs = Structs::read(&["task_struct", "list_head", "nsproxy"]);
        assert_eq!((structs.offset("list_head", "next"), structs.offset("list_head", "prev")), (0, 8));
        // Neighbours in every task_struct there ever was.
        assert_eq!(structs.offset("task_struct", "tgid"), structs.offset("task_struct", "pid") + 4);
        assert!(structs.offset("nsproxy", "uts_ns") < structs.offset("nsproxy", "net_ns"));
    }
}
