//! Writes into a machine's memory from outside, through QEMU's debugger interface.
//!
//! A live test inside the machine plays a kernel exploit this way: it says in one line which word is to become what,
//! and the word changes while no program of the machine runs, by no system call and no kernel code. Only what the
//! line itself expects to find there is overwritten.

use anyhow::{Context, Result, anyhow, bail, ensure};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

/// How a line of the tests begins that is meant for us; `libtest` may have left its own words before it.
const MARK: &str = "observer-vm: ";

/// The way into one machine.
pub struct Debugger {
    socket: PathBuf,
}

impl Debugger {
    /// The socket lies where paths are short: it must fit into 107 bytes.
    pub fn new() -> Self {
        Self { socket: std::env::temp_dir().join(format!("observer-vm-{}.gdb", std::process::id())) }
    }

    /// What `-gdb` takes.
    pub fn device(&self) -> String {
        format!("unix:{},server=on,wait=off", self.socket.display())
    }

    /// Does what a line asks for, if it asks for something; what came of it, in a line for people. The test sees for
    /// itself whether its memory has changed.
    pub fn answer(&self, line: &str) -> Option<String> {
        let asked = line.split_once(MARK)?.1;
        let done = Request::parse(asked).and_then(|request| self.write(&request));
        Some(match done {
            Ok(()) => format!("{MARK}done"),
            Err(error) => format!("{MARK}not done: {error:#}"),
        })
    }

    /// QEMU stops the machine for as long as a debugger is connected.
    fn write(&self, request: &Request) -> Result<()> {
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("QEMU's debugger socket {}", self.socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut stub = Stub { stream };
        let written = stub.swap(request);
        // Whatever came of it, the machine goes on.
        let resumed = stub.expect_ok("D").context("resume the machine");
        written.and(resumed)
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// `write ADDRESS OLD NEW`, all hexadecimal: the eight bytes at a physical address.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    address: u64,
    old: u64,
    new: u64,
}

impl Request {
    fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["write", address, old, new] = words[..] else { bail!("no request known here: {text:?}") };
        let number = |word: &str| {
            let digits = word.strip_prefix("0x").unwrap_or(word);
            u64::from_str_radix(digits, 16).with_context(|| format!("{word:?} is no number"))
        };
        Ok(Self { address: number(address)?, old: number(old)?, new: number(new)? })
    }
}

/// The other side of gdb's remote protocol.
struct Stub<S> {
    stream: S,
}

impl<S: Read + Write> Stub<S> {
    fn swap(&mut self, request: &Request) -> Result<()> {
        // Physical addresses, because virtual ones mean what the page table of whichever process runs just then says,
        // and with page-table isolation a program's table does not show the kernel's memory.
        self.expect_ok("Qqemu.PhyMemMode:1").context("QEMU does not take physical addresses")?;
        let Request { address, old, new } = *request;
        let found = self.word(address)?;
        ensure!(found == old, "there is {found:#x} at {address:#x}, not {old:#x}: left as it is");
        let bytes: String = new.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.expect_ok(&format!("M{address:x},8:{bytes}"))?;
        let now = self.word(address)?;
        ensure!(now == new, "written, and yet there is {now:#x} at {address:#x}");
        Ok(())
    }

    fn word(&mut self, address: u64) -> Result<u64> {
        let hex = self.ask(&format!("m{address:x},8"))?;
        let digits = (hex.len() == 16).then(|| u64::from_str_radix(&hex, 16).ok()).flatten();
        // In the order of the machine's memory.
        digits.map(u64::swap_bytes).ok_or_else(|| anyhow!("QEMU cannot read {address:#x}: {hex:?}"))
    }

    fn expect_ok(&mut self, request: &str) -> Result<()> {
        let answer = self.ask(request)?;
        ensure!(answer == "OK", "QEMU answers {answer:?} to {request:?}");
        Ok(())
    }

    /// One request and its answer. What QEMU says unasked (that the machine has stopped) is passed over.
    fn ask(&mut self, request: &str) -> Result<String> {
        self.stream.write_all(format!("${request}#{:02x}", checksum(request.as_bytes())).as_bytes())?;
        loop {
            let answer = self.packet().with_context(|| format!("no answer to {request:?}"))?;
            if !answer.starts_with(['T', 'S']) {
                return Ok(answer);
            }
        }
    }

    fn packet(&mut self) -> Result<String> {
        // Acknowledgements come before the packet.
        while self.byte()? != b'$' {}
        let mut payload = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => payload.push(byte),
            }
        }
        let sent = [self.byte()?, self.byte()?];
        let payload = String::from_utf8(payload).context("not text")?;
        let right = format!("{:02x}", checksum(payload.as_bytes()));
        ensure!(sent == right.as_bytes(), "a packet with a wrong checksum: {payload:?}");
        self.stream.write_all(b"+")?;
        Ok(payload)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Cursor, thread};

    #[test]
    fn requests_are_exact() {
        let request = Request::parse("write 0x1000 0xffff888000000000 2a").unwrap();
        assert_eq!(request, Request { address: 0x1000, old: 0xffff_8880_0000_0000, new: 0x2a });
        for wrong in ["", "write", "write 1 2", "write 1 2 3 4", "write 1 2 x", "read 1 2 3"] {
            assert!(Request::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn packets_are_checked() {
        let packet = |bytes: &[u8]| Stub { stream: Cursor::new(bytes.to_vec()) }.packet();
        assert_eq!(packet(b"+$OK#9a+").unwrap(), "OK");
        assert_eq!(packet(b"$#00+").unwrap(), "");
        assert!(packet(b"+$OK#9b+").is_err());
        assert!(packet(b"+$OK").is_err());
    }

    /// Answers like QEMU, with one word of memory.
    fn machine(mut stub: Stub<UnixStream>, mut word: String) -> String {
        let say = |stub: &mut Stub<UnixStream>, text: &str| {
            let packet = format!("+${text}#{:02x}", checksum(text.as_bytes()));
            stub.stream.write_all(packet.as_bytes()).unwrap();
        };
        say(&mut stub, "T02thread:01;");
        while let Ok(request) = stub.packet() {
            match request.split_once(':') {
                Some(("Qqemu.PhyMemMode", "1")) => say(&mut stub, "OK"),
                Some(("M1000,8", bytes)) => {
                    word = bytes.to_owned();
                    say(&mut stub, "OK");
                }
                None if request == "m1000,8" => say(&mut stub, &word),
                _ => say(&mut stub, "E14"),
            }
        }
        word
    }

    #[test]
    fn a_word_is_overwritten_only_if_it_is_the_one_expected() {
        for (old, new, after) in [(0x0102, 0xff, "ff00000000000000"), (0x0103, 0xff, "0201000000000000")] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let other = thread::spawn(|| machine(Stub { stream: theirs }, "0201000000000000".into()));
            let done = Stub { stream: ours }.swap(&Request { address: 0x1000, old, new });
            assert_eq!(done.is_ok(), old == 0x0102, "{done:?}");
            assert_eq!(other.join().unwrap(), after);
        }
    }
}
