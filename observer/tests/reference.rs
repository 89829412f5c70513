//! The verbs that look at nothing: what they print, how they refuse, and that others' tools agree.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(args).stdin(Stdio::null()).output().expect("start observer")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// What it prints when all is well.
fn printed(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{args:?}");
    text(&output.stdout).to_owned()
}

#[test]
fn caps_encodes_what_it_decodes() {
    assert_eq!(printed(&["caps", "NET_ADMIN,SYS_PTRACE", "chown"]), "0000000000081001\n");
    let decoded = printed(&["caps", "0x81001"]);
    assert!(decoded.starts_with("0000000000081001: 3 capabilities\n"), "{decoded}");
    let json: serde_json::Value =
        serde_json::from_str(&printed(&["caps", "--json", "81001"])).expect("a JSON document");
    let names = json["capabilities"].as_array().expect("a list").iter().map(|it| it["name"].as_str());
    let names: Vec<&str> = names.map(|name| name.expect("a name")).collect();
    assert_eq!(printed(&["caps", &names.join(",")]), "0000000000081001\n");
}

#[test]
fn caps_refuses_in_one_line_with_what_was_meant() {
    for (args, expected) in [
        (
            &["caps", "chown", "kill,NET_ADMN"][..],
            "observer: argument 2: `NET_ADMN` is neither a capability (did you mean `NET_ADMIN`?) nor a mask \
             of up to 16 hexadecimal digits\n",
        ),
        (
            &["caps", "\x1b[2J"],
            "observer: argument 1: `\\x1b[2J` is neither a capability nor a mask of up to 16 hexadecimal digits\n",
        ),
        (
            &["caps", "1ffffffffffffffff"],
            "observer: argument 1: `1ffffffffffffffff` is no mask of capabilities: expected up to 16 hexadecimal \
             digits (64 bits)\n",
        ),
    ] {
        let output = run(args);
        let got = (output.status.code(), text(&output.stdout), text(&output.stderr));
        assert_eq!(got, (Some(2), "", expected), "{args:?}");
    }
}

/// libcap has its own table of names.
#[test]
fn caps_agrees_with_capsh() {
    let capsh = |mask: &str| Command::new("capsh").arg(format!("--decode={mask}")).output();
    if let Err(error) = capsh("0") {
        assert_eq!(error.raw_os_error(), Some(2), "capsh: {error}");
        let _ = writeln!(std::io::stderr(), "SKIPPED: capsh is not installed (ENOENT)");
        return;
    }
    let singles = (0..=40).map(|bit| format!("{:016x}", 1_u64 << bit));
    let others = ["0000000000000000", "00000000a80425fb", "000001ffffffffff", "0000003fffffffff"];
    for mask in singles.chain(others.map(str::to_owned)) {
        let output = capsh(&mask).expect("it was there");
        // 0x00000000a80425fb=cap_chown,cap_dac_override,...
        let (shown, names) = text(&output.stdout).trim_end().split_once('=').expect("MASK=NAMES");
        assert_eq!(shown, format!("0x{mask}"));
        let json: serde_json::Value =
            serde_json::from_str(&printed(&["caps", "--json", &mask])).expect("a JSON document");
        let ours = json["capabilities"].as_array().expect("a list").iter().map(|it| {
            // An older libcap gives numbers for what it has no names for.
            let (number, name) =
                (it["number"].to_string(), it["name"].as_str().expect("a name").to_lowercase());
            if names.split(',').any(|theirs| theirs == number) { number } else { name }
        });
        let ours: Vec<String> = ours.collect();
        assert_eq!(ours.join(","), names, "{mask}");
    }
}

#[test]
fn completions_and_pages_are_printed_and_bad_names_refused() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completions", shell]).contains("observer"), "{shell}");
    }
    for (page, title) in [(&["man", "caps"][..], ".TH observer-caps 8 "), (&["man"], ".TH observer 8 ")] {
        assert!(printed(page).lines().any(|line| line.starts_with(title)), "{page:?}");
    }
    for args in
        [&["completions", "cmd.exe"][..], &["completions"], &["man", "fly"], &["man", "tail", "--out", "x"]]
    {
        let output = run(args);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{args:?}");
    }
}

#[test]
fn all_pages_are_written_into_a_directory() {
    let directory = std::env::temp_dir().join(format!("observer-man-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let path = directory.join("man8");
    printed(&["man", "--out", path.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(path.join("observer-caps.8")).expect("the page");
    assert_eq!(page, printed(&["man", "caps"]));
    let refused = run(&["man", "--out", path.join("observer.8").to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(text(&refused.stderr).lines().count(), 1);
    std::fs::remove_dir_all(&directory).expect("remove the scratch directory");
}
