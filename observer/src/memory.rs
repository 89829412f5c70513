//! The agent's own memory.

use procfs::process::{MMPermissions, MemoryMap, Process};

use crate::telemetry::log;

/// What only the start has needed goes back to the kernel, before the agent settles down to run for months: the heap's free pages
/// (the kernel's types, the scan), and the pages that were read from the program's file (the kernel programs, all that configures
/// and loads). Of the latter those that are needed again come from the page cache, at the price of a fault.
pub fn give_back() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
    let maps = match Process::myself().and_then(|process| process.smaps()) {
        Ok(maps) => maps,
        Err(error) => return log::debug!("the agent's own mappings cannot be read", error),
    };
    let this = give_back as *const () as u64;
    let own = maps.iter().find(|it| (it.address.0..it.address.1).contains(&this));
    let Some(file) = own.map(file) else { return };
    for mapping in maps.iter().filter(|it| file_of(it) == Some(file) && is_as_in_file(it)) {
        let (start, end) = mapping.address;
        // SAFETY: a mapping of this process's own program file that nobody has written to and nobody can write to: what is
        // dropped is read again.
        if unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) }
            != 0
        {
            log::debug!("pages were not given back", error = std::io::Error::last_os_error());
        }
    }
}

/// Device and inode number.
type File = (i32, i32, u64);

fn file(mapping: &MemoryMap) -> File {
    (mapping.dev.0, mapping.dev.1, mapping.inode)
}

fn file_of(mapping: &MemoryMap) -> Option<File> {
    (mapping.inode != 0).then(|| file(mapping))
}

/// Code and constants; but not what the loader has relocated and then closed, which is in no file.
fn is_as_in_file(mapping: &MemoryMap) -> bool {
    let others = MMPermissions::WRITE | MMPermissions::SHARED;
    !mapping.perms.intersects(others) && mapping.extension.map.get("Anonymous") == Some(&0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use procfs::{FromRead, process::MemoryMaps};

    use super::*;

    fn mapping(permissions: &str, anonymous: u32) -> MemoryMap {
        let text = format!(
            "55d0a8a00000-55d0a9400000 {permissions} 00619000 fe:00 1835091                    /usr/bin/observer\n\
             Rss:                 128 kB\nAnonymous:           {anonymous:4} kB\nVmFlags: rd ex mr mw me sd\n"
        );
        let maps = MemoryMaps::from_read(Cursor::new(text)).expect("smaps");
        maps.into_iter().next().expect("a mapping")
    }

    #[test]
    fn what_was_written_to_stays() {
        assert!(is_as_in_file(&mapping("r-xp", 0)));
        assert!(is_as_in_file(&mapping("r--p", 0)));
        assert!(!is_as_in_file(&mapping("r--p", 4)), "relocated");
        assert!(!is_as_in_file(&mapping("r-xp", 4)), "a debugger's breakpoint");
        assert!(!is_as_in_file(&mapping("rw-p", 0)));
        assert!(!is_as_in_file(&mapping("r-xs", 0)));
        assert_eq!(file_of(&mapping("r-xp", 0)), Some((0xfe, 0, 1_835_091)));
    }

    #[test]
    fn the_program_goes_on_after_it() {
        let constants = include_str!("memory.rs");
        let before = constants.len();
        give_back();
        assert_eq!(constants.lines().map(|line| line.len() + 1).sum::<usize>(), before);
    }
}
