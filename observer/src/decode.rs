//! Frames to events. Pure: bytes in, an event or a counted error out, never a panic.

use observer_common::{
    ABI_VERSION, Ancestor, Cgroup, CgroupMove, Exec, Exit, Fork, ForkRefused, Header, Kind, MAX_ANCESTORS,
    OomKill, RootChange, Seccomp, Syscall, flags, path_source,
};
use zerocopy::{FromBytes, Immutable};

use crate::model::RootPath;

/// Why a frame could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a frame of {got} bytes is too short for {what}")]
    Short { what: &'static str, got: usize },
    #[error("a frame says it has {said} bytes and has {got}")]
    Size { said: u32, got: usize },
    #[error("a frame of format {0}, expected {ABI_VERSION}")]
    Version(u16),
    #[error("a frame of unknown kind {0}")]
    Kind(u16),
}

/// One event of the kernel side.
#[derive(Clone, Debug)]
pub struct Event {
    pub header: Header,
    pub kind: Kind,
    pub payload: Payload,
    /// Nearest first, up to pid 1; only of events that came by the priority ring.
    pub ancestors: Vec<Ancestor>,
}

/// What differs by kind. Text is kept as the kernel gave it: bytes, but for paths that it gave in pieces.
#[derive(Clone, Debug)]
pub enum Payload {
    Fork(Fork),
    Exec { exec: Exec, filename: Vec<u8>, args: Vec<u8> },
    Exit(Exit),
    Cgroup { cgroup: Cgroup, path: Vec<u8> },
    CgroupMove { change: CgroupMove, path: Vec<u8> },
    Syscall(Syscall),
    RootChange { change: RootChange, path: Option<RootPath> },
    OomKill(OomKill),
    ForkRefused(ForkRefused),
    Seccomp(Seccomp),
    Nothing,
}

impl Event {
    pub fn is(&self, flag: u32) -> bool {
        self.header.flags & flag != 0
    }
}

/// What is left of a frame.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<T: FromBytes + Immutable>(&mut self, what: &'static str) -> Result<T, DecodeError> {
        let (value, rest) =
            T::read_from_prefix(self.0).map_err(|_| DecodeError::Short { what, got: self.0.len() })?;
        self.0 = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: u32, what: &'static str) -> Result<Vec<u8>, DecodeError> {
        let short = DecodeError::Short { what, got: self.0.len() };
        let (bytes, rest) = self.0.split_at_checked(len as usize).ok_or(short)?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }
}

/// Reads one frame.
pub fn decode(frame: &[u8]) -> Result<Event, DecodeError> {
    let mut rest = Rest(frame);
    let header: Header = rest.take("a header")?;
    if header.version != ABI_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    if header.size as usize != frame.len() {
        return Err(DecodeError::Size { said: header.size, got: frame.len() });
    }
    let kind = Kind::from_wire(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    let ancestors_follow = header.flags & flags::ANCESTORS != 0;
    let mut ancestors = Vec::new();
    let mut behind = |rest: &mut Rest<'_>| -> Result<(), DecodeError> {
        if ancestors_follow {
            ancestors.reserve(MAX_ANCESTORS);
            let mut done = false;
            for _ in 0..MAX_ANCESTORS {
                let ancestor: Ancestor = rest.take("its ancestors")?;
                // The kernel side does not stop at pid 1: behind it come the idle task and its own parent, itself.
                if !done && ancestor.tgid != 0 {
                    ancestors.push(ancestor);
                }
                done |= ancestor.tgid <= 1;
            }
        }
        Ok(())
    };
    let payload = match kind {
        Kind::Fork => {
            let fork = rest.take("a fork")?;
            behind(&mut rest)?;
            Payload::Fork(fork)
        }
        Kind::Exec => {
            let exec: Exec = rest.take("an exec")?;
            behind(&mut rest)?;
            let filename = rest.bytes(exec.filename_len, "its file name")?;
            let args = rest.bytes(exec.args_len, "its arguments")?;
            Payload::Exec { exec, filename, args }
        }
        Kind::Exit => {
            let exit = rest.take("an exit")?;
            behind(&mut rest)?;
            Payload::Exit(exit)
        }
        Kind::CgroupMkdir | Kind::CgroupRmdir => {
            let cgroup: Cgroup = rest.take("a cgroup")?;
            behind(&mut rest)?;
            let path = rest.bytes(cgroup.path_len, "its path")?;
            Payload::Cgroup { cgroup, path }
        }
        Kind::CgroupMove => {
            let change: CgroupMove = rest.take("a move")?;
            behind(&mut rest)?;
            let path = rest.bytes(change.to.path_len, "its path")?;
            Payload::CgroupMove { change, path }
        }
        Kind::Setns | Kind::Unshare | Kind::Clone => {
            let call = rest.take("a system call")?;
            behind(&mut rest)?;
            Payload::Syscall(call)
        }
        Kind::Chroot | Kind::PivotRoot => {
            let change: RootChange = rest.take("a change of root")?;
            behind(&mut rest)?;
            let bytes = rest.bytes(change.path_len, "its path")?;
            let path = match change.path_source {
                path_source::KERNEL => {
                    // A mount that is in no namespace (any more): its top is nobody's.
                    let whole = header.flags & flags::TRUNCATED == 0 && change.root.mnt_ns != 0;
                    Some(RootPath::from_names(&bytes, whole))
                }
                path_source::CALLER => RootPath::given(&bytes),
                _ => None,
            };
            Payload::RootChange { change, path }
        }
        Kind::OomKill => {
            let kill = rest.take("an OOM kill")?;
            behind(&mut rest)?;
            Payload::OomKill(kill)
        }
        Kind::ForkRefused => {
            let refused = rest.take("a refused fork")?;
            behind(&mut rest)?;
            Payload::ForkRefused(refused)
        }
        Kind::SeccompDenied | Kind::SeccompKilled => {
            let what = rest.take("a refusal by seccomp")?;
            behind(&mut rest)?;
            Payload::Seccomp(what)
        }
        Kind::Drift => {
            behind(&mut rest)?;
            Payload::Nothing
        }
    };
    Ok(Event { header, kind, payload, ancestors })
}

/// Bytes up to the first NUL, as text; what is not UTF-8 is replaced.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// NUL-separated arguments. The last one may have been cut.
pub fn arguments(block: &[u8]) -> Vec<String> {
    let block = block.strip_suffix(b"\0").unwrap_or(block);
    if block.is_empty() {
        return Vec::new();
    }
    block.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

#[cfg(test)]
pub mod build {
    //! Frames for tests.
    use observer_common::*;
    use zerocopy::{Immutable, IntoBytes};

    pub fn header(kind: Kind) -> Header {
        Header {
            size: 0,
            version: ABI_VERSION,
            kind: kind as u16,
            time_ns: 1_000_000_000,
            cpu: 0,
            flags: 0,
            tgid: 100,
            tid: 100,
            ppid: 1,
            uid: 0,
            gid: 0,
            ns_pid: 100,
            start_ns: 500_000_000,
            slot: 0,
            cgroup_v2: 1,
            cgroup_pids: 0,
            cgroup_memory: 0,
            permitted: 0,
            attainable: 0,
            execs: 0,
            reserved: 0,
            inodes: [1; NAMESPACES],
            comm: *b"test\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    pub fn oom_kill() -> OomKill {
        OomKill {
            victim_slot: 0,
            victim_start_ns: 500_000_000,
            limit_cgroup_id: 7,
            limit_pages: 8192,
            usage_pages: 8190,
            anon_pages: 8000,
            file_pages: 100,
            shmem_pages: 3,
            swap_pages: 0,
            limit_hierarchy: 4,
            victim_tgid: 100,
            victim_tid: 101,
            victim_uid: 1000,
            scope: oom::CGROUP,
            oom_score_adj: -5,
            victim_comm: *b"hog\0\0\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    pub fn fork_refused() -> ForkRefused {
        ForkRefused { cgroup_id: 7, count: 3, current: 50, max: 50, hierarchy: 3, errno: 11 }
    }

    pub fn frame<P: IntoBytes + Immutable>(mut header: Header, payload: &P, tail: &[u8]) -> Vec<u8> {
        header.size = (size_of::<Header>() + size_of::<P>() + tail.len()) as u32;
        [header.as_bytes(), payload.as_bytes(), tail].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{build::*, *};
    use observer_common::Root;

    fn exec_frame() -> Vec<u8> {
        let exec = Exec { old_tid: 100, filename_len: 7, args_len: 6, args_total: 6 };
        frame(header(Kind::Exec), &exec, b"/bin/shsh\0-c\0")
    }

    #[test]
    fn an_exec_is_read_with_its_name_and_arguments() {
        let event = decode(&exec_frame()).unwrap();
        let Payload::Exec { filename, args, .. } = event.payload else { panic!("{event:?}") };
        assert_eq!(filename, b"/bin/sh");
        assert_eq!(arguments(&args), ["sh", "-c"]);
    }

    #[test]
    fn limits_are_read_behind_and_before_ancestors() {
        let Payload::OomKill(kill) = decode(&frame(header(Kind::OomKill), &oom_kill(), b"")).unwrap().payload
        else {
            panic!("no OOM kill")
        };
        assert_eq!((kill.limit_pages, kill.usage_pages, kill.limit_hierarchy), (8192, 8190, 4));
        assert_eq!((kill.victim_tgid, kill.victim_tid, kill.oom_score_adj), (100, 101, -5));
        let mut h = header(Kind::ForkRefused);
        h.flags = flags::ANCESTORS;
        let ancestors = [0u8; MAX_ANCESTORS * size_of::<Ancestor>()];
        let event = decode(&frame(h, &fork_refused(), &ancestors)).unwrap();
        let Payload::ForkRefused(refused) = event.payload else { panic!("{event:?}") };
        assert_eq!((refused.count, refused.current, refused.max, refused.errno), (3, 50, 50, libc::EAGAIN));
        assert!(decode(&frame(h, &fork_refused(), b"")).is_err(), "ancestors that are not there");
    }

    #[test]
    fn every_cut_of_a_frame_is_an_error_and_no_panic() {
        for whole in [
            exec_frame(),
            frame(header(Kind::OomKill), &oom_kill(), b""),
            frame(header(Kind::ForkRefused), &fork_refused(), b""),
        ] {
            assert!(decode(&whole).is_ok());
            every_cut_is_an_error(&whole);
        }
    }

    fn every_cut_is_an_error(whole: &[u8]) {
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "{end} bytes");
            // Also with a size that agrees with the cut.
            let mut cut = whole[..end].to_vec();
            if end >= 4 {
                cut[..4].copy_from_slice(&(end as u32).to_ne_bytes());
            }
            assert!(decode(&cut).is_err(), "{end} bytes that say so");
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_named() {
        let mut h = header(Kind::Drift);
        h.kind = 99;
        assert_eq!(decode(&frame(h, &[0u8; 0], b"")).unwrap_err(), DecodeError::Kind(99));
        h.version = 7;
        assert_eq!(decode(&frame(h, &[0u8; 0], b"")).unwrap_err(), DecodeError::Version(7));
    }

    #[test]
    fn lengths_beyond_the_frame_are_errors() {
        let exec = Exec { old_tid: 1, filename_len: u32::MAX, args_len: u32::MAX, args_total: 0 };
        assert!(matches!(decode(&frame(header(Kind::Exec), &exec, b"x")), Err(DecodeError::Short { .. })));
    }

    #[test]
    fn ancestors_end_at_pid_1() {
        let mut h = header(Kind::Drift);
        h.flags = flags::ANCESTORS;
        let list: [Ancestor; MAX_ANCESTORS] = std::array::from_fn(|i| Ancestor {
            tgid: [50, 20, 1, 0, 0, 0, 0, 0][i],
            reserved: 0,
            start_ns: 0,
            comm: [0; 16],
        });
        let event = decode(&frame(h, &list, b"")).unwrap();
        assert_eq!(event.ancestors.iter().map(|a| a.tgid).collect::<Vec<_>>(), [50, 20, 1]);
    }

    #[test]
    fn a_root_has_the_path_of_its_source() {
        use crate::model::PathSource;
        let root_in = |mnt_ns, source, bits, tail: &[u8]| {
            let change = RootChange {
                call: Syscall { nr: 161, reserved: 0, ret: 0, args: [0; 2] },
                root: Root { mnt_ns, dev: 1, mount_root_ino: 2, ino: 3 },
                path_len: tail.len() as u32,
                path_source: source,
            };
            let mut h = header(Kind::Chroot);
            h.flags = bits;
            let event = decode(&frame(h, &change, tail)).unwrap();
            let Payload::RootChange { path, .. } = event.payload else { panic!("{event:?}") };
            path.map(|path| (path.text, path.source))
        };
        let root = |source, bits, tail: &[u8]| root_in(1, source, bits, tail);
        let kernel = |text: &str| Some((text.to_owned(), PathSource::Kernel));
        assert_eq!(root(path_source::KERNEL, 0, b"b\0a\0"), kernel("/a/b"));
        assert_eq!(root(path_source::KERNEL, 0, b""), kernel("/"));
        assert_eq!(root(path_source::KERNEL, flags::TRUNCATED, b"b\0"), kernel(".../b"));
        assert_eq!(root_in(0, path_source::KERNEL, 0, b"b\0"), kernel(".../b"));
        assert_eq!(root(path_source::CALLER, 0, b"../x"), Some(("../x".to_owned(), PathSource::Caller)));
        assert_eq!(root(path_source::CALLER, 0, b""), None);
        assert_eq!(root(path_source::NONE, 0, b""), None);
        assert_eq!(root(99, 0, b"x"), None);
    }

    #[test]
    fn text_stops_at_nul_and_replaces_what_is_not_utf8() {
        assert_eq!(text(b"ab\0cd"), "ab");
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(arguments(b""), Vec::<String>::new());
        assert_eq!(arguments(b"a\0\0b"), ["a", "", "b"]);
    }
}
