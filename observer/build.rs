//! Builds the kernel programs and hands their object file to the agent as `$OUT_DIR/observer.bpf.o`; tells it the
//! commit that it is built from.

#[path = "../xtask/src/bpf_toolchain.rs"]
mod bpf_toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = manifest_dir.parent().expect("this package lies in the workspace");
    git_commit(workspace);
    if let Err(error) = kernel_programs(workspace) {
        println!("cargo::error={error}");
    }
}

fn kernel_programs(workspace: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={}", bpf_toolchain::OVERRIDE);
    // The workspace's own two files hold the profile and the versions of what the kernel programs are built from.
    let inputs = ["Cargo.toml", "Cargo.lock"].map(PathBuf::from).into_iter().chain(
        ["observer-ebpf", "observer-common"].into_iter().flat_map(|package| {
            ["src", "Cargo.toml", "build.rs"].map(|input| Path::new(package).join(input))
        }),
    );
    for input in inputs.map(|input| workspace.join(input)).filter(|input| input.exists()) {
        // (A path that does not exist would count as changed every time.)
        println!("cargo::rerun-if-changed={}", input.display());
    }

    let missing = |what| format!("cannot build the kernel programs: {what}; run: cargo xtask setup");
    let compiler = bpf_toolchain::find_compiler(bpf_toolchain::wanted()?).map_err(missing)?;
    let linker = bpf_toolchain::find_linker().map_err(missing)?;

    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let log = env::var_os("CARGO_FEATURE_BPF_LOG").is_some();
    // Shared by every profile and tool that runs this script, so that only the first has something to compile, but
    // one for each variant, so that none can copy another's object.
    let variant = format!("bpf/{}{}", compiler.kind, if log { "-log" } else { "" });
    let target_dir = root_of_target_dir(&out_dir).join(variant);

    let mut cargo = compiler.cargo("build", &linker, &target_dir, log)?;
    if log {
        cargo.args(["--features", "log"]);
    }
    // Its words go to this script's output, which cargo shows when the script fails.
    let status =
        cargo.current_dir(workspace).status().map_err(|error| format!("cannot start cargo: {error}"))?;
    if !status.success() {
        let mismatch = compiler.llvm_mismatch(&linker).map(|it| format!(" ({it})")).unwrap_or_default();
        // An exit code, because cargo shows the output of a failed script only for one that fails so.
        println!("cargo::error=the kernel programs do not build{mismatch}: the compiler's words are below");
        std::process::exit(1);
    }
    let object = target_dir.join(bpf_toolchain::bpf_target()).join("release/observer-bpf");
    let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", object.display());
    let bytes = fs::read(&object).map_err(|error| failed(&error))?;
    let lines = env::var("PROFILE").as_deref() == Ok("debug");
    let stripped = without_debug(&bytes, lines).map_err(|error| failed(&error))?;
    fs::write(out_dir.join("observer.bpf.o"), stripped).map_err(|error| failed(&error))
}

/// The object without DWARF: the linker needed it to make BTF, the kernel takes only that, and it is four fifths of the
/// file, which the agent would carry in memory for good. Nor with what would move BTF's own numbers if the object were linked
/// once more, and only in debug builds with the source lines, which the verifier quotes where it refuses a program.
fn without_debug(object: &[u8], lines: bool) -> object::build::Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_vec();
        section.delete |= name.strip_prefix(b".rel").unwrap_or(&name).starts_with(b".debug_");
        section.delete |= name == b".rel.BTF" || name == b".rel.BTF.ext";
        if let object::build::elf::SectionData::Data(data) = &mut section.data
            && name == b".BTF.ext"
            && !lines
        {
            without_lines(data.to_mut());
        }
    }
    // LLVM keeps names of sections and of symbols in one table, which the writer does not.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    builder.delete_orphans();
    let mut out = Vec::new();
    builder.write(&mut out)?;
    Ok(out)
}

/// `struct btf_ext_header` (tools/lib/bpf/libbpf_internal.h) begins with a magic number, a version, flags, its own length, then offset
/// and length of three parts: functions, source lines, relocations of types.
fn without_lines(data: &mut Vec<u8>) {
    let word = |data: &[u8], at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let (Some(header), Some(start), Some(len), Some(next)) =
        (word(data, 4), word(data, 16), word(data, 20), word(data, 24))
    else {
        return;
    };
    let from = header as usize + start as usize;
    if start + len <= next && from + len as usize <= data.len() {
        data.drain(from..from + len as usize);
        data[20..24].fill(0);
        data[24..28].copy_from_slice(&(next - len).to_le_bytes());
    }
}

/// The top of the calling cargo's target directory, which cargo marks for backup programs to leave out.
fn root_of_target_dir(out_dir: &Path) -> &Path {
    out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).unwrap_or(out_dir)
}

/// `OBSERVER_GIT_COMMIT`: the short commit, or "unknown" outside a repository.
fn git_commit(workspace: &Path) {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(workspace).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    println!("cargo::rustc-env=OBSERVER_GIT_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // HEAD itself changes only when another branch is checked out; a commit changes the branch's file.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD"].into_iter().chain(branch.as_deref()).chain(["packed-refs"]) {
        let path = git(&["rev-parse", "--git-path", name]).map(|path| workspace.join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}
