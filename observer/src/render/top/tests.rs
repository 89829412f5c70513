//! The screen as golden text, and its keys.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    style::{Color, Modifier},
};

use super::*;
use crate::{
    host::resources::{Rates, SCHEMA, Sampled},
    model::resources::{
        Cpu, Memory, MemoryEvents, MemoryLimit, Pids, PidsLimit, Pressure, Resources, Stall, StallTimes,
        Unread,
    },
    render::Colours,
};

fn sample() -> Sample {
    let stall = |share| {
        let some = StallTimes { avg10_percent: share, ..StallTimes::default() };
        Some(Stall { some: Some(some), full: None })
    };
    let web = Sampled {
        id: "3f2a9c1b0d4e5f60".repeat(4),
        name: Some("web".to_owned()),
        runtime: "docker".to_owned(),
        resources: Resources {
            memory: Some(Memory {
                usage_bytes: Some(7_900_000),
                working_set_bytes: Some(7_800_000),
                effective_limit: Some(MemoryLimit {
                    bytes: 7_999_488,
                    path: "/docker".to_owned(),
                    hierarchy: 4,
                }),
                events: Some(MemoryEvents { oom_kill: Some(2), ..MemoryEvents::default() }),
                ..Memory::default()
            }),
            cpu: Some(Cpu::default()),
            pids: Some(Pids {
                current: Some(9),
                effective_max: Some(PidsLimit { max: 100, path: "/docker".to_owned(), hierarchy: 8 }),
                ..Pids::default()
            }),
            pressure: Some(Pressure { cpu: stall(1.5), memory: stall(0.0), io: None }),
            ..Resources::default()
        },
        rates: Rates {
            cpu_percent: Some(150.256),
            throttled_percent: Some(25.0),
            read_bytes_per_second: Some(1_500_000.0),
            written_bytes_per_second: Some(0.0),
            ..Rates::default()
        },
    };
    // What a container's name may be is the runtime's to say, and runtimes have allowed much.
    let hostile = Sampled {
        id: "x\x1b[2J".to_owned(),
        name: Some("\x1b]0;owned\x07\u{202e}日本\n".to_owned()),
        runtime: "runc\x1b[31m".to_owned(),
        resources: Resources {
            memory: Some(Memory { usage_bytes: Some(512 << 20), ..Memory::default() }),
            ..Resources::default()
        },
        rates: Rates { cpu_percent: Some(0.0), ..Rates::default() },
    };
    let new =
        Sampled { id: "ns-4026532001".to_owned(), runtime: "namespaces".to_owned(), ..Sampled::default() };
    Sample {
        schema: SCHEMA.to_owned(),
        time: "2026-01-02T03:04:05.123456789Z".to_owned(),
        containers: vec![new, hostile, web],
        unread: Vec::new(),
    }
}

/// The lines of a screen of that size, without blanks at their ends.
fn lines(screen: &mut Screen, sample: &Sample, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| screen.draw(frame, sample)).expect("draw");
    let buffer = terminal.backend().buffer().clone();
    let line = |y| -> String {
        // The cell after a wide character belongs to it.
        let mut x = 0;
        let mut text = String::new();
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += (columns_of(symbol) as u16).max(1);
        }
        text.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn press(screen: &mut Screen, keys: &[KeyCode]) {
    for key in keys {
        assert_eq!(screen.key(KeyEvent::from(*key), &sample()), Step::Draw, "{key:?}");
    }
}

fn keys(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

fn new_screen() -> Screen {
    Screen::new(Colours::OFF, 2.0)
}

/// Names in the order in which they are shown.
fn order(screen: &mut Screen) -> Vec<String> {
    let lines = lines(screen, &sample(), 160, 10);
    let rows = lines.iter().skip(2).take(6).filter(|line| !line.is_empty());
    rows.filter_map(|line| line.split_whitespace().next())
        .map(|name| name.chars().take(5).collect())
        .collect()
}

#[test]
fn a_wide_screen() {
    assert_eq!(
        lines(&mut new_screen(), &sample(), 150, 8),
        [
            r"observer top  03:04:05Z  3 containers  every 2 s",
            r"NAME               ID            RUNTIME          CPU %▼  THROT %   MEM USAGE / LIMIT   MEM %   PIDS / MAX      IO R / W PER S   OOM    PRESSURE C/M/I",
            r"web                3f2a9c1b0d4e  docker           150.26    25.00 7.439MiB / 7.629MiB   97.51      9 / 100       1.431MiB / 0B     2         1.5/0.0/-",
            r"\x1b]0;owned\x07\… x\x1b[2J      runc\x1b[31m       0.00        -          512MiB / -       -        - / -               - / -     -                 -",
            r"ns-4026532001      ns-4026532001 namespaces            -        -               - / -       -        - / -               - / -     -                 -",
            "",
            "",
            r"q quit  ↑↓ select  ←→ sort  r reverse  / filter  ? help",
        ]
    );
}

#[test]
fn a_narrow_screen_leaves_columns_out_and_says_so() {
    assert_eq!(
        lines(&mut new_screen(), &sample(), 80, 7),
        [
            r"observer top  03:04:05Z  3 containers  every 2 s",
            r"NAME              CPU %▼  THROT %   MEM USAGE / LIMIT   MEM %   PIDS / MAX   OOM",
            r"web               150.26    25.00 7.439MiB / 7.629MiB   97.51      9 / 100     2",
            r"\x1b]0;owned\x…     0.00        -          512MiB / -       -        - / -     -",
            r"ns-4026532001          -        -               - / -       -        - / -     -",
            "",
            r"q quit  ↑↓ select  ←→ sort  r reverse  / filter  ? help  (4 columns hidden)",
        ]
    );
}

#[test]
fn the_column_sorted_by_stays() {
    let mut screen = new_screen();
    // One to the left of CPU.
    press(&mut screen, &keys("S"));
    let shown = lines(&mut screen, &sample(), 80, 7);
    assert!(shown[1].contains("RUNTIME▲") && !shown[1].contains(" ID "), "{shown:#?}");
}

#[test]
fn no_size_is_too_small() {
    for width in [1, 2, 10, 20, 40] {
        for height in [1, 2, 3, 5] {
            let mut screen = new_screen();
            press(&mut screen, &keys("j?"));
            assert_eq!(lines(&mut screen, &sample(), width, height).len(), usize::from(height));
        }
    }
    let none = Sample::default();
    assert!(lines(&mut new_screen(), &none, 80, 5)[0].contains("0 containers"));
}

#[test]
fn sorting() {
    for (typed, expected) in [
        ("", ["web", "\\x1b]", "ns-40"]),
        // What is not known is last, in either direction.
        ("r", ["\\x1b]", "web", "ns-40"]),
        ("s", ["web", "ns-40", "\\x1b]"]),
        ("l>", ["\\x1b]", "web", "ns-40"]),
        ("S", ["web", "ns-40", "\\x1b]"]),
        ("hr", ["\\x1b]", "ns-40", "web"]),
        // All the way round.
        ("sssssssssss", ["web", "\\x1b]", "ns-40"]),
        ("SSSSSSSSSSS", ["web", "\\x1b]", "ns-40"]),
        ("<<<", ["\\x1b]", "ns-40", "web"]),
    ] {
        let mut screen = new_screen();
        press(&mut screen, &keys(typed));
        assert_eq!(order(&mut screen), expected, "{typed:?}");
    }
}

#[test]
fn the_selection_stays_with_its_container() {
    let mut screen = new_screen();
    press(&mut screen, &keys("j"));
    let detail = |screen: &mut Screen| lines(screen, &sample(), 160, 8)[6].clone();
    let web = format!("{}  memory limit 7.629MiB at /docker", "3f2a9c1b0d4e5f60".repeat(4));
    assert_eq!(detail(&mut screen), web);
    press(&mut screen, &keys("r"));
    assert_eq!(detail(&mut screen), web);
    press(&mut screen, &[KeyCode::Up]);
    assert_eq!(detail(&mut screen), r"x\x1b[2J");
    for (key, expected) in [
        (KeyCode::Char('k'), r"x\x1b[2J"),
        (KeyCode::End, "ns-4026532001"),
        (KeyCode::Char('j'), "ns-4026532001"),
        (KeyCode::Char('g'), r"x\x1b[2J"),
        (KeyCode::PageDown, "ns-4026532001"),
        (KeyCode::PageUp, r"x\x1b[2J"),
        (KeyCode::Esc, ""),
    ] {
        press(&mut screen, &[key]);
        assert_eq!(detail(&mut screen), expected, "{key:?}");
    }
}

#[test]
fn filtering_by_name_or_id() {
    let mut screen = new_screen();
    press(&mut screen, &keys("/WEqx"));
    assert_eq!(lines(&mut screen, &sample(), 80, 6)[5], "filter: WEqx_");
    assert_eq!(order(&mut screen), [""; 0]);
    press(&mut screen, &[KeyCode::Backspace, KeyCode::Backspace]);
    assert_eq!(order(&mut screen), ["web"]);
    press(&mut screen, &[KeyCode::Enter]);
    assert_eq!(
        lines(&mut screen, &sample(), 80, 6)[0],
        "observer top  03:04:05Z  1 of 3 containers  every 2 s  filter: WE"
    );
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(order(&mut screen).len(), 3);
    press(&mut screen, &keys("/ns-4026532"));
    assert_eq!(order(&mut screen), ["ns-40"]);
    press(&mut screen, &[KeyCode::Esc]);
    // A letter or two stand somewhere in nearly every id.
    press(&mut screen, &keys("/26532"));
    assert_eq!(order(&mut screen), [""; 0]);
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(order(&mut screen).len(), 3);
    // A filter is what somebody typed or pasted.
    press(&mut screen, &keys("/\u{202e}"));
    assert_eq!(lines(&mut screen, &sample(), 80, 6)[5], r"filter: \u{202e}_");
    press(&mut screen, &keys(&"x".repeat(500)));
    let shown = lines(&mut screen, &sample(), 160, 6)[5].matches('x').count();
    assert_eq!(shown, 63);
}

#[test]
fn help_and_quitting() {
    let mut screen = new_screen();
    press(&mut screen, &keys("?"));
    let text = lines(&mut screen, &sample(), 100, 20).join("\n");
    assert!(
        text.contains("filter by part of a name, or start of an id") && text.contains("any key closes this"),
        "{text}"
    );
    // The key that closes it does nothing else.
    press(&mut screen, &keys("q"));
    assert!(!lines(&mut screen, &sample(), 100, 20).join("\n").contains("any key closes"));
    assert_eq!(screen.key(KeyEvent::from(KeyCode::Char('q')), &sample()), Step::Quit);
    press(&mut screen, &keys("/q"));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control_c, &sample()), Step::Quit);
    let mut released = KeyEvent::from(KeyCode::Char('q'));
    released.kind = KeyEventKind::Release;
    assert_eq!(new_screen().key(released, &sample()), Step::Draw);
}

#[test]
fn what_could_not_be_read_is_told_escaped() {
    let mut sample = sample();
    let unread = Unread { what: "/sys/\x1b[2J/x".to_owned(), why: "not a number".to_owned() };
    sample.unread = vec![unread.clone(), unread];
    assert_eq!(
        lines(&mut new_screen(), &sample, 120, 8)[6],
        r"could not read /sys/\x1b[2J/x: not a number (and 1 more)"
    );
}

#[test]
fn values_near_a_limit_are_coloured_where_colours_are_wanted() {
    for (colours, expected) in [(Colours::ON, Color::Red), (Colours::OFF, Color::Reset)] {
        let mut screen = Screen::new(colours, 2.0);
        let mut terminal = Terminal::new(TestBackend::new(80, 6)).expect("a terminal");
        terminal.draw(|frame| screen.draw(frame, &sample())).expect("draw");
        let buffer = terminal.backend().buffer();
        let cell = |text: &str| {
            let line: String = (0..80).map(|x| buffer[(x, 2)].symbol()).collect();
            let at = line.find(text).expect("the cell");
            buffer[(at as u16, 2)].fg
        };
        assert_eq!(cell("97.51"), expected);
        assert_eq!(cell("150.26"), Color::Reset);
        assert!(buffer[(0, 1)].modifier.contains(Modifier::REVERSED));
    }
}

#[test]
fn a_table_for_pipes() {
    assert_eq!(
        table(&sample()).lines().collect::<Vec<_>>(),
        [
            r"NAME                            ID             RUNTIME        CPU %  THROT %    MEM USAGE / LIMIT  MEM %  PIDS / MAX  IO R / W PER S  OOM  PRESSURE C/M/I",
            r"web                             3f2a9c1b0d4e   docker        150.26    25.00  7.439MiB / 7.629MiB  97.51     9 / 100   1.431MiB / 0B    2       1.5/0.0/-",
            r"\x1b]0;owned\x07\u{202e}日本\n  x\x1b[2J       runc\x1b[31m    0.00        -           512MiB / -      -       - / -           - / -    -               -",
            r"ns-4026532001                   ns-4026532001  namespaces         -        -                - / -      -       - / -           - / -    -               -",
        ]
    );
    let none = table(&Sample::default());
    assert!(none.starts_with("NAME  ID  RUNTIME") && none.lines().count() == 1, "{none}");
}

#[test]
fn sizes_as_the_docker_cli_writes_them() {
    for (bytes, text) in [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (462_848, "452KiB"),
        (7_999_488, "7.629MiB"),
        (512 << 20, "512MiB"),
        (25_276_678_144, "23.54GiB"),
        (1_048_575, "1MiB"),
        (1023 << 10, "1023KiB"),
        (u64::MAX, "16EiB"),
    ] {
        assert_eq!(columns::size(Some(bytes)), text, "{bytes}");
    }
    assert_eq!(columns::size(None), "-");
}
