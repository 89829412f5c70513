//! The kernel's memory: read from inside, by /proc/kcore, and written from outside, by whoever runs the machine.
//!
//! So a test changes what the kernel holds about a task as an exploit would: by no system call, and by no code of the
//! kernel's. Only a virtual machine of `cargo xtask vm` has somebody outside who does it.

use crate::btf::Structs;
use crate::lab::skipped;
use crate::wait;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// Names the device on which the outside reads requests.
const CHANNEL: &str = "OBSERVER_LIVE_DEBUGGER";
/// How a request begins.
const MARK: &str = "observer-vm: ";

/// More processes than any machine of these tests has.
const MOST_TASKS: usize = 10_000;

/// A stretch of memory that /proc/kcore shows.
#[derive(Debug)]
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
    /// Where it lies in the machine's memory; not of all kinds.
    physical: Option<u64>,
}

/// The offsets that are needed.
#[derive(Debug)]
struct Layout {
    tasks: u64,
    pid: u64,
    nsproxy: u64,
    cred: u64,
    permitted: u64,
}

/// The running kernel, with somebody outside who writes.
#[derive(Debug)]
pub struct Kernel {
    kcore: File,
    segments: Vec<Segment>,
    layout: Layout,
    init_task: u64,
    channel: PathBuf,
}

impl Kernel {
    /// `None`, and said so, where there is nobody outside, or the kernel keeps its memory to itself.
    pub fn open() -> Option<Self> {
        let Some(channel) = std::env::var_os(CHANNEL) else {
            // A machine of ours is recognised by what it was started with, and always has one.
            let words = fs::read_to_string("/proc/cmdline").expect("the kernel's command line");
            let ours = words.split_whitespace().any(|word| word.starts_with("observer.tests="));
            assert!(!ours, "a virtual machine of ours that names no debugger's channel: {words}");
            skipped("not in a virtual machine of `cargo xtask vm`: nobody writes into this kernel's memory");
            return None;
        };
        let kcore = match File::open("/proc/kcore") {
            Ok(kcore) => kcore,
            Err(error) => {
                let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
                assert!(
                    error.raw_os_error() == Some(libc::EPERM) && lockdown.contains("[confidentiality]"),
                    "/proc/kcore: {error}, lockdown: {lockdown:?}"
                );
                skipped("the kernel is locked down: /proc/kcore gives EPERM");
                return None;
            }
        };
        let structs = Structs::read(&["task_struct", "cred"]);
        let of_task = |member| structs.offset("task_struct", member);
        let layout = Layout {
            tasks: of_task("tasks"),
            pid: of_task("pid"),
            nsproxy: of_task("nsproxy"),
            cred: of_task("real_cred"),
            permitted: structs.offset("cred", "cap_permitted"),
        };
        let segments = segments(&kcore).expect("/proc/kcore's table of contents");
        Some(Self { kcore, segments, layout, init_task: symbol("init_task"), channel: channel.into() })
    }

    /// Where a process's pointer to its namespaces is, and what it is now.
    fn nsproxy(&self, pid: u32) -> (u64, u64) {
        let place = self.task_of(pid) + self.layout.nsproxy;
        (place, self.word(place).expect("the task's namespaces"))
    }

    /// Where the set of capabilities is that a process's credentials permit, and what it is now.
    fn permitted(&self, pid: u32) -> (u64, u64) {
        let cred = self.word(self.task_of(pid) + self.layout.cred).expect("the task's credentials");
        let place = cred + self.layout.permitted;
        (place, self.word(place).expect("the credentials' permitted set"))
    }

    fn task_of(&self, pid: u32) -> u64 {
        // The list changes while it is walked, and an element that has just gone leads nowhere.
        let task = wait::until(Duration::from_secs(10), || self.task(pid).ok().flatten());
        task.unwrap_or_else(|| panic!("no task {pid} in the kernel's list"))
    }

    /// The `task_struct` of a process. The list begins and ends with the idle task's.
    fn task(&self, pid: u32) -> io::Result<Option<u64>> {
        let mut task = self.init_task;
        for _ in 0..MOST_TASKS {
            task = self.word(task + self.layout.tasks)?.wrapping_sub(self.layout.tasks);
            if task == self.init_task {
                break;
            }
            if self.word(task + self.layout.pid)? as u32 == pid {
                return Ok(Some(task));
            }
        }
        Ok(None)
    }

    fn word(&self, address: u64) -> io::Result<u64> {
        let (segment, inside) = self.segment(address).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = [0; 8];
        self.kcore.read_exact_at(&mut bytes, segment.offset + inside)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn segment(&self, address: u64) -> Option<(&Segment, u64)> {
        let fits = |segment: &&Segment| {
            address.checked_sub(segment.address).is_some_and(|inside| inside + 8 <= segment.size)
        };
        self.segments.iter().find(fits).map(|segment| (segment, address - segment.address))
    }

    /// Has the outside write a word, and waits until it is there.
    fn write(&self, address: u64, old: u64, new: u64) -> Result<(), String> {
        let (segment, inside) = self.segment(address).expect("memory that /proc/kcore shows");
        let physical = segment.physical.expect("memory with a place of its own") + inside;
        let mut channel = File::options().append(true).open(&self.channel).expect("the debugger's channel");
        // One write, on a line of its own: the test runner has begun one with the test's name.
        let request = format!("\n{MARK}write {physical:#x} {old:#x} {new:#x}\n");
        channel.write_all(request.as_bytes()).expect("ask the debugger");
        let there =
            wait::until_true(Duration::from_secs(30), || self.word(address).is_ok_and(|it| it == new));
        there.then_some(()).ok_or_else(|| format!("nobody wrote {new:#x} to {address:#x} within 30 s"))
    }

    /// Gives a process the namespaces of another one, for as long as the guard lives.
    pub fn lend_namespaces(&self, from: u32, to: u32) -> Lent<'_> {
        let ((_, lent), (place, own)) = (self.nsproxy(from), self.nsproxy(to));
        assert_ne!(lent, own, "{to} has the namespaces of {from} already");
        self.write(place, own, lent).expect("lend the namespaces");
        Lent { kernel: self, place, own, lent }
    }

    /// Permits a process more capabilities, for as long as the guard lives; to its effective set nothing is added, so that it can do
    /// no more than before until it raises them.
    pub fn lend_capabilities(&self, pid: u32, more: u64) -> Lent<'_> {
        let (place, own) = self.permitted(pid);
        assert_eq!(own & more, 0, "{pid} has some of {more:#x} already");
        self.write(place, own, own | more).expect("lend the capabilities");
        Lent { kernel: self, place, own, lent: own | more }
    }
}

/// A word that was overwritten. If it is a pointer, it is not counted: no process that it leads from or to may end before it is
/// given back, which the drop does.
#[derive(Debug)]
#[must_use = "what was lent is given back at once"]
pub struct Lent<'a> {
    kernel: &'a Kernel,
    place: u64,
    own: u64,
    lent: u64,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Of a failed test, the first failure is what matters.
        if let Err(error) = self.kernel.write(self.place, self.lent, self.own)
            && !std::thread::panicking()
        {
            panic!("give back what was lent: {error}");
        }
    }
}

/// The address of a symbol of the kernel's.
fn symbol(name: &str) -> u64 {
    let table = fs::read_to_string("/proc/kallsyms").expect("the kernel's symbols");
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(name));
    let line = line.unwrap_or_else(|| panic!("no symbol {name}"));
    let address = u64::from_str_radix(line.split(' ').next().unwrap_or_default(), 16).expect("an address");
    assert_ne!(address, 0, "the kernel hides its symbols' addresses (kptr_restrict)");
    address
}

/// The loadable segments of an ELF file of 64 bits.
fn segments(elf: &File) -> io::Result<Vec<Segment>> {
    const PT_LOAD: u64 = 1;
    let number = |at: u64, size: usize| {
        let mut bytes = [0; 8];
        elf.read_exact_at(&mut bytes[..size], at)?;
        io::Result::Ok(u64::from_le_bytes(bytes))
    };
    let (table, each, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut segments = Vec::new();
    for at in (0..count).map(|i| table + i * each) {
        if number(at, 4)? == PT_LOAD {
            segments.push(Segment {
                offset: number(at + 8, 8)?,
                address: number(at + 16, 8)?,
                physical: Some(number(at + 24, 8)?).filter(|it| *it != u64::MAX),
                size: number(at + 32, 8)?,
            });
        }
    }
    Ok(segments)
}
