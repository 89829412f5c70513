//! Which compiler builds the kernel programs, and how it has to be called.
//!
//! The BPF target is tier 3: no stable toolchain carries a `core` for it. Two ways around that exist, and a
//! machine usually has only one of them:
//!
//! * `debian`: Debian compiles `core` for `bpfel-unknown-none` itself and packages it beside its own rustc.
//!   Nothing is downloaded but packages, and the compiler moves only with the distribution.
//! * `nightly`: a rustup nightly with the `rust-src` component compiles `core` on the spot.
//!
//! Debian's is taken where both are usable, because a nightly changes by the day.
//!
//! `observer/build.rs` includes this file by path as well, so that the set-up and the build can never disagree
//! about what is there. A build script's dependencies are everybody's dependencies, hence only std here.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Set to `debian` or `nightly`, this overrides the choice.
pub const OVERRIDE: &str = "OBSERVER_BPF_TOOLCHAIN";

/// The oldest bpf-linker accepted, and the one that the set-up installs.
pub const LINKER_VERSION: &str = "0.10.1";

/// The newest LLVM that this bpf-linker was written for.
const LINKER_LLVM_MAJOR: u32 = 22;

const PACKAGE: &str = "observer-ebpf";
const SEPARATOR: &str = "\x1f"; // between the flags in CARGO_ENCODED_RUSTFLAGS

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Debian,
    Nightly,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        })
    }
}

/// The kind that the environment asks for, if it asks.
pub fn wanted() -> Result<Option<Kind>, String> {
    match env::var_os(OVERRIDE) {
        None => Ok(None),
        Some(value) if value == "debian" => Ok(Some(Kind::Debian)),
        Some(value) if value == "nightly" => Ok(Some(Kind::Nightly)),
        Some(value) => Err(format!("{OVERRIDE} must be debian or nightly, not {value:?}")),
    }
}

/// A compiler that can produce BPF code.
#[derive(Debug)]
pub struct Compiler {
    pub kind: Kind,
    /// Where its rustc is, and its cargo-clippy, if it has one.
    pub bin: PathBuf,
    cargo: PathBuf,
    sysroot: PathBuf,
}

/// The compiler that this machine has; the error names the first thing that is missing.
pub fn find_compiler(wanted: Option<Kind>) -> Result<Compiler, String> {
    match wanted {
        Some(Kind::Debian) => debian(),
        Some(Kind::Nightly) => nightly(),
        None => debian().or_else(|debian_lacks| {
            // What a machine with neither should be told is what the set-up would install there.
            nightly().map_err(|nightly_lacks| if has_apt() { debian_lacks } else { nightly_lacks })
        }),
    }
}

/// Whether this machine installs its packages with apt.
pub fn has_apt() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

fn debian() -> Result<Compiler, String> {
    let rustc = Path::new("/usr/bin/rustc");
    if !rustc.exists() {
        return Err("Debian's rustc is missing (package rustc-web)".to_owned());
    }
    let core = Path::new("/usr/lib/rustlib").join(bpf_target()).join("lib");
    let has_core = fs::read_dir(core).is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
    });
    if !has_core {
        return Err(format!("core for {} is missing (package libstd-rust-web-dev-bpf)", bpf_target()));
    }
    Ok(Compiler {
        kind: Kind::Debian,
        bin: "/usr/bin".into(),
        // Any cargo will do for any rustc; the one that is running is at hand.
        cargo: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into(),
        sysroot: "/usr".into(),
    })
}

/// Looks at files rather than asking rustup: its proxies may start a download when asked for a toolchain.
fn nightly() -> Result<Compiler, String> {
    let rustup = home("RUSTUP_HOME", ".rustup")
        .ok_or("neither RUSTUP_HOME nor HOME is set, so no nightly can be found")?;
    let installed = fs::read_dir(rustup.join("toolchains"))
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok())
        // `nightly-x86_64-...` is the one that setup installs; `nightly-2026-01-31-...` is somebody's pin.
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .strip_prefix("nightly-")
                .is_some_and(|rest| rest.starts_with(env::consts::ARCH))
        })
        .map(|entry| entry.path())
        .find(|toolchain| toolchain.join("bin/cargo").exists());
    let Some(sysroot) = installed else {
        return Err("a rustup nightly toolchain is missing".to_owned());
    };
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        return Err("the rust-src component of the rustup nightly toolchain is missing".to_owned());
    }
    Ok(Compiler {
        kind: Kind::Nightly,
        bin: sysroot.join("bin"),
        // -Z build-std is refused by a cargo that is not a nightly itself.
        cargo: sysroot.join("bin/cargo"),
        sysroot,
    })
}

/// The linker that this machine has; the error says what is wrong with it.
pub fn find_linker() -> Result<PathBuf, String> {
    // Cargo's own directory comes first: it is where the set-up installs, whatever else is on PATH.
    let cargo_bin = home("CARGO_HOME", ".cargo").map(|cargo| cargo.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let linker = cargo_bin
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| {
            file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
        .ok_or("bpf-linker is missing")?;
    let version = output(Command::new(&linker).arg("--version")).ok_or("bpf-linker --version fails")?;
    let version = version.trim().trim_start_matches("bpf-linker ");
    if numbers(version) < numbers(LINKER_VERSION) {
        return Err(format!("bpf-linker {version} is too old, {LINKER_VERSION} is needed"));
    }
    Ok(linker)
}

impl Compiler {
    /// `cargo VERB` on the kernel programs, for release, to be run in the workspace. `target_dir` must not be the
    /// one of a cargo that is waiting for this one (as it is when called from a build script): the two would wait
    /// for each other's lock. `verb` is `build` or `clippy`.
    pub fn cargo(&self, verb: &str, linker: &Path, target_dir: &Path, log: bool) -> Result<Command, String> {
        let mut command = if verb == "clippy" {
            // Not `cargo clippy`, which would take the first cargo-clippy on PATH, for another rustc.
            Command::new(self.bin.join("cargo-clippy"))
        } else {
            Command::new(&self.cargo)
        };
        // Everything that the calling cargo tells its own compilers (wrappers, flags, the package and its
        // features) is wrong for this one. Where to find cargo's files and registries is right.
        const KEPT: [&str; 7] = [
            "CARGO_HOME",
            "CARGO_MAKEFLAGS",
            "CARGO_NET_",
            "CARGO_HTTP_",
            "CARGO_REGISTR",
            "CARGO_SOURCE_",
            "CARGO_TERM_",
        ];
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let of_cargo =
                ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY_"].iter().any(|it| text.starts_with(it));
            if of_cargo && !KEPT.iter().any(|it| text.starts_with(it)) {
                command.env_remove(&name);
            }
        }
        let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
        let mut flags = vec![
            format!("-Clinker={}", linker.display()),
            // The linker makes BTF from debug information; line tables alone hold no types.
            "-Cdebuginfo=2".to_owned(),
            // The machine whose registers aya-ebpf reads; BPF itself is the same everywhere.
            format!("--cfg=bpf_target_arch=\"{arch}\""),
        ];
        if !log {
            // Not with logging: aya-log's global is a union whose Rust name the kernel refuses as BTF, and neither loading
            // nor typed pointers (which rest on the kernel's own types) need the object's.
            flags.push("-Clink-arg=--btf".to_owned());
        }
        if verb == "clippy" {
            flags.push("-Dwarnings".to_owned());
        }
        command
            .args([
                verb,
                "--quiet",
                "--release",
                "--package",
                PACKAGE,
                "--target",
                bpf_target(),
                "--target-dir",
            ])
            .arg(target_dir)
            .env("CARGO", &self.cargo)
            .env("RUSTC", self.bin.join("rustc"))
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
            // A user's configuration may put all intermediate files in one place, and the lock with them.
            .env("CARGO_BUILD_BUILD_DIR", target_dir)
            .env("LD_LIBRARY_PATH", self.library_path(target_dir)?);
        match self.kind {
            // The BPF target's inline assembly is an unstable feature, which a release refuses otherwise.
            Kind::Debian => command.env("RUSTC_BOOTSTRAP", "1"),
            Kind::Nightly => command.args(["-Z", "build-std=core"]),
        };
        Ok(command)
    }

    /// A library path whose first entry holds the compiler's own LLVM and no other.
    ///
    /// bpf-linker, as cargo installs it, opens the first libLLVM it meets in LD_LIBRARY_PATH, in the order in which
    /// the directory happens to be stored. That may be the LLVM of whichever toolchain started the build, or
    /// one of several in /usr/lib, and an LLVM older than the compiler's cannot read what the compiler wrote.
    /// Handing it the compiler's own settles that.
    fn library_path(&self, target_dir: &Path) -> Result<OsString, String> {
        let inherited = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let Some(library) = self.llvm_library() else {
            return Ok(inherited); // linked into the compiler: nothing to hand over
        };
        let dir = target_dir.join("llvm");
        let link = dir.join("libLLVM.so");
        if fs::read_link(&link).ok().as_ref() != Some(&library) {
            fs::create_dir_all(&dir)
                .and_then(|()| fs::remove_file(&link).or(Ok(())))
                .and_then(|()| std::os::unix::fs::symlink(&library, &link))
                .map_err(|error| format!("{}: {error}", link.display()))?;
        }
        let inherited = env::split_paths(&inherited).filter(|entry| !entry.as_os_str().is_empty());
        env::join_paths([dir].into_iter().chain(inherited))
            .map_err(|error| format!("{}: {error}", target_dir.display()))
    }

    fn llvm_library(&self) -> Option<PathBuf> {
        let (major, minor) = self.llvm_version()?;
        let lib = self.sysroot.join("lib");
        // Debian's multiarch directory, else rustup's only one.
        let dirs = [lib.join(format!("{}-linux-gnu", env::consts::ARCH)), lib];
        // Of the names in use, the one that says most comes first: `libLLVM.so.22.1`, `libLLVM-22.so`.
        let names = [format!("libLLVM.so.{major}.{minor}"), format!("libLLVM-{major}")];
        names.iter().find_map(|name| {
            dirs.iter().find_map(|dir| {
                fs::read_dir(dir)
                    .ok()?
                    .filter_map(|file| Some(file.ok()?.path()))
                    .find(|file| file.file_name().is_some_and(|it| it.to_string_lossy().starts_with(name)))
            })
        })
    }

    fn llvm_version(&self) -> Option<(u32, u32)> {
        let told = output(Command::new(self.bin.join("rustc")).arg("-vV"))?;
        let version = numbers(told.lines().find_map(|line| line.strip_prefix("LLVM version: "))?);
        Some((*version.first()?, *version.get(1)?))
    }

    /// What is wrong between the compiler's LLVM and the linker's, as far as the two can be made to tell. Reads all
    /// of a large file: for after an installation or a failure.
    pub fn llvm_mismatch(&self, linker: &Path) -> Option<String> {
        let (compilers, _) = self.llvm_version()?;
        let file = fs::read(linker).ok()?;
        let position = |text: &[u8]| file.windows(text.len()).position(|window| window == text);
        if position(b"unable to find LLVM shared lib").is_some() {
            // It opens the compiler's LLVM (see `library_path`), so only the other direction can go wrong.
            return (compilers > LINKER_LLVM_MAJOR).then(|| {
                format!(
                    "rustc's LLVM {compilers} is newer than LLVM {LINKER_LLVM_MAJOR}, the last that bpf-linker \
                     {LINKER_VERSION} knows"
                )
            });
        }
        let linked = [&b"libLLVM.so."[..], b"libLLVM-"].into_iter().find_map(|prefix| {
            let rest = &file[position(prefix)? + prefix.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            str::from_utf8(&rest[..digits]).ok()?.parse::<u32>().ok()
        });
        match linked {
            Some(linkers) if linkers < compilers => Some(format!(
                "bpf-linker was built for LLVM {linkers}, older than rustc's LLVM {compilers}, whose output it cannot \
                 read; run: cargo install bpf-linker --version {LINKER_VERSION} --force"
            )),
            Some(_) => None,
            None => Some(format!(
                "bpf-linker contains an LLVM whose version it does not tell; it must not be older than rustc's {compilers}"
            )),
        }
    }
}

/// BPF code has the byte order of the machine that it is to run on.
pub fn bpf_target() -> &'static str {
    if env::var_os("CARGO_CFG_TARGET_ENDIAN").is_some_and(|endian| endian == "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

fn home(variable: &str, under_home: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(under_home)))
}

/// The first numbers of a version, for comparing: "22.1.8-rust" gives 22, 1, 8.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok()).collect()
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
