//! The hugetlb controller: one set of files for each huge page size, with the size in their names.

use super::files::{Files, Limit};
use crate::model::resources::Hugetlb;

/// v1 or v2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    usage: &'static str,
    limit: &'static str,
}

pub(super) const V1: Names = Names { usage: ".usage_in_bytes", limit: ".limit_in_bytes" };
pub(super) const V2: Names = Names { usage: ".current", limit: ".max" };

/// A huge page size of this machine: as the kernel writes it, and in bytes. They are fixed at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    name: String,
    bytes: u64,
}

/// Looks for the sizes where they are not known yet.
pub(super) fn read(files: &mut Files, names: Names, sizes: &mut Vec<Size>) -> Vec<Hugetlb> {
    if sizes.is_empty() {
        let found = files.names();
        let found = found.iter().filter_map(|name| {
            let name = name.to_str()?.strip_prefix("hugetlb.")?.strip_suffix(names.usage)?;
            Some(Size { name: name.to_owned(), bytes: bytes(name)? })
        });
        sizes.extend(found);
        sizes.sort_by_key(|size| size.bytes);
    }
    let mut all = Vec::new();
    for size in sizes.iter() {
        let usage_bytes = files.number(&format!("hugetlb.{}{}", size.name, names.usage));
        if files.absent() {
            continue;
        }
        let limit = files.limit(&format!("hugetlb.{}{}", size.name, names.limit));
        all.push(Hugetlb {
            page_size_bytes: size.bytes,
            usage_bytes,
            limit_bytes: limit.and_then(Limit::at),
        });
    }
    all
}

/// `2MB` (mem_fmt, mm/hugetlb_cgroup.c).
fn bytes(name: &str) -> Option<u64> {
    let digits = name.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = name.split_at_checked(digits)?;
    let unit = match unit {
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (name, size) in [
            ("64KB", Some(64 << 10)),
            ("2MB", Some(2 << 20)),
            ("16GB", Some(16 << 30)),
            ("2MB.rsvd", None),
            ("MB", None),
            ("2", None),
            ("2TB", None),
            ("99999999999999999999GB", None),
            ("18446744073709551615GB", None),
        ] {
            assert_eq!(bytes(name), size, "{name}");
        }
    }
}
