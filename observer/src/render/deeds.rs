//! What a container may do and what it was seen to do, below its findings.

use std::fmt::Write as _;

use super::{
    Untrusted,
    table::{Cell, Column, Surface, Table},
    words,
};
use crate::{
    inventory::{AppArmorDeeds, CallDeeds, CapabilityDeeds, Deeds},
    model::{AppArmorVerdict, DeniedAccess, How, Severity},
};

/// Characters of a name that a program has given itself.
const COMM: usize = 16;
/// Of a path, and of a profile's name.
const WHAT: usize = 64;
const PROFILE: usize = 32;

pub fn deeds(deeds: &Deeds, surface: Surface) -> String {
    let strong = surface.colours.strong();
    let mut text = String::new();
    if let Some(capabilities) = &deeds.capabilities {
        let age = words::age(capabilities.seconds);
        let _ = writeln!(text, "\n{strong}Capabilities{strong:#}, observed for {age}");
        table_of_capabilities(capabilities, surface, &mut text);
    }
    if let Some(calls) = &deeds.syscalls {
        let _ =
            writeln!(text, "\n{strong}System calls{strong:#}, observed for {}", words::age(deeds.seconds));
        table_of_calls(calls, surface, &mut text);
    }
    if let Some(apparmor) = &deeds.apparmor {
        let age = words::age(apparmor.seconds);
        let _ = writeln!(text, "\n{strong}AppArmor{strong:#}, observed for {age}");
        table_of_denials(apparmor, surface, &mut text);
    }
    text
}

fn table_of_capabilities(deeds: &CapabilityDeeds, surface: Surface, text: &mut String) {
    let granted = deeds.granted.unwrap_or_default();
    let (used, denied) = if deeds.exact { ("USED", "DENIED") } else { ("CHECKED", "REFUSED") };
    let mut table = Table::new([
        Column::left("CAPABILITY"),
        Column::left("GRANTED"),
        Column::left(used),
        Column::left(denied),
    ]);
    for it in (granted | deeds.used | deeds.denied).iter() {
        let mark = |is: bool| if is { "yes" } else { "" };
        let used = deeds.used.contains(it.number);
        let name = if granted.contains(it.number) && !used && deeds.exact {
            Cell::severity(it.name, Severity::Notice)
        } else {
            it.name.into()
        };
        table.row([
            name,
            mark(granted.contains(it.number)).into(),
            mark(used).into(),
            mark(deeds.denied.contains(it.number)).into(),
        ]);
    }
    text.push_str(&if table.is_empty() { "none\n".to_owned() } else { table.render(surface) });
    if !deeds.exact {
        text.push_str("This kernel does not tell which checks meant a use.\n");
    } else if !deeds.unused.is_empty() {
        let _ = writeln!(text, "Granted and not used: {}", deeds.unused.names().join(", "));
    }
    table_of_checks(deeds, surface, text);
}

/// How often, since when, and by whom first.
fn table_of_checks(deeds: &CapabilityDeeds, surface: Surface, text: &mut String) {
    let mut table = Table::new([
        Column::left("CHECKED"),
        Column::left("RESULT"),
        Column::right("COUNT"),
        Column::right("USER NS"),
        Column::left("FIRST"),
        Column::left("LAST"),
        Column::left("FIRST BY"),
    ]);
    for checked in &deeds.checks {
        for (result, count, checks) in [
            ("granted".into(), checked.granted, &checked.grants),
            (Cell::severity("denied", Severity::Notice), checked.denied, &checked.denials),
        ] {
            let Some(checks) = checks else { continue };
            table.row([
                checked.capability.as_str().into(),
                result,
                count.to_string().into(),
                checks.user_namespace.to_string().into(),
                checks.first.as_str().into(),
                checks.last.as_str().into(),
                format!("{} (pid {})", Untrusted(&checks.comm, COMM), checks.pid).into(),
            ]);
        }
    }
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.render(surface));
    }
}

fn table_of_calls(deeds: &CallDeeds, surface: Surface, text: &mut String) {
    let count = |number: Option<usize>| number.map_or("not known".to_owned(), |number| number.to_string());
    let refused = if deeds.refusals_counted { deeds.denied().to_string() } else { "not counted".to_owned() };
    let mut table = Table::new([
        Column::right("GRANTED"),
        Column::right("USED"),
        Column::right("DENIED"),
        Column::right("UNUSED"),
    ]);
    table.row([
        count(deeds.granted).into(),
        deeds.used.len().to_string().into(),
        refused.into(),
        count(deeds.unused).into(),
    ]);
    text.push_str(&table.render(surface));
    if !deeds.refused.is_empty() {
        let mut table = Table::new([
            Column::left("REFUSED"),
            Column::left("HOW"),
            Column::left("ERRNO"),
            Column::right("COUNT"),
            Column::left("LAST"),
            Column::left("FIRST BY"),
        ]);
        for refused in &deeds.refused {
            let how = match refused.how {
                How::Unclassified => Cell::faint(refused.how.words()),
                how => Cell::severity(how.words(), Severity::Warning),
            };
            table.row([
                refused.syscall.as_str().into(),
                how,
                refused.errno.as_deref().unwrap_or_default().into(),
                refused.count.to_string().into(),
                refused.last.as_str().into(),
                format!("{} (pid {})", Untrusted(&refused.comm, COMM), refused.pid).into(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(surface));
    }
    let mut table = Table::new([Column::left("USED").wrap()]);
    table.row([deeds.used.join(" ").into()]);
    text.push('\n');
    text.push_str(&table.render(surface));
}

fn table_of_denials(deeds: &AppArmorDeeds, surface: Surface, text: &mut String) {
    let mut table = Table::new([
        Column::left("RESULT"),
        Column::left("OPERATION"),
        Column::left("WHAT"),
        Column::left("MASK"),
        Column::right("COUNT"),
        Column::left("FIRST"),
        Column::left("LAST"),
        Column::left("FIRST BY"),
        Column::left("PROFILE"),
    ]);
    for denied in &deeds.denied {
        let result = denied.result.words();
        table.row([
            match denied.result {
                AppArmorVerdict::Allowed => Cell::faint(result),
                AppArmorVerdict::Denied => Cell::severity(result, Severity::Notice),
                AppArmorVerdict::Killed => Cell::severity(result, Severity::Warning),
            },
            Untrusted(&denied.operation, WHAT).to_string().into(),
            what(denied).into(),
            Untrusted(denied.denied.as_deref().unwrap_or_default(), COMM).to_string().into(),
            denied.count.to_string().into(),
            denied.first.as_str().into(),
            denied.last.as_str().into(),
            format!("{} (pid {})", Untrusted(&denied.comm, COMM), denied.pid).into(),
            Untrusted(&denied.profile, PROFILE).to_string().into(),
        ]);
    }
    text.push_str(&if table.is_empty() { "nothing denied\n".to_owned() } else { table.render(surface) });
}

fn what(denied: &DeniedAccess) -> String {
    match (denied.what.as_str(), denied.profile.as_str()) {
        ("", "") => "others".to_owned(),
        (what, _) => Untrusted(what, WHAT).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CapSet, CheckedCapability, Checks, RefusedCall};

    #[test]
    fn both_tables_say_what_was_seen() {
        let refused = RefusedCall {
            syscall: "mount".into(),
            errno: Some("EPERM".into()),
            count: 3,
            last: "2026-01-02T03:04:05Z".into(),
            pid: 7,
            comm: "a\x1b[2J".into(),
            ..RefusedCall::default()
        };
        let checked = CheckedCapability {
            capability: "CAP_SYS_ADMIN".into(),
            denied: 2,
            denials: Some(Checks {
                first: "2026-01-02T03:04:05Z".into(),
                last: "2026-01-02T03:04:06Z".into(),
                pid: 8,
                comm: "b\x1b[2J".into(),
                user_namespace: 4026531837,
            }),
            ..CheckedCapability::default()
        };
        let denied = |result, what: &str, count| DeniedAccess {
            result,
            operation: "open".into(),
            what: what.into(),
            profile: if what.is_empty() { String::new() } else { "web".into() },
            denied: Some("r".into()),
            count,
            first: "2026-01-02T03:04:05Z".into(),
            last: "2026-01-02T03:04:06Z".into(),
            pid: 9,
            comm: "c\x1b[2J".into(),
            ..DeniedAccess::default()
        };
        let all = Deeds {
            seconds: 7200,
            capabilities: Some(CapabilityDeeds {
                exact: true,
                seconds: 3600,
                granted: Some(CapSet::of(&[0, 1])),
                used: CapSet::of(&[0]),
                denied: CapSet::of(&[21]),
                unused: CapSet::of(&[1]),
                checks: vec![checked],
            }),
            syscalls: Some(CallDeeds {
                granted: Some(300),
                used: vec!["close".into(), "read".into()],
                refused: vec![refused],
                refusals_counted: true,
                unused: Some(298),
            }),
            apparmor: Some(AppArmorDeeds {
                seconds: 60,
                denied: vec![
                    denied(AppArmorVerdict::Denied, "/etc/\x1b[2J", 3),
                    denied(AppArmorVerdict::Allowed, "/b", 1),
                    denied(AppArmorVerdict::Denied, "", 900),
                ],
            }),
        };
        assert_eq!(
            deeds(&all, Surface::PLAIN),
            "\nCapabilities, observed for 1h\n\
             CAPABILITY        GRANTED  USED  DENIED\n\
             CAP_CHOWN         yes      yes   -\n\
             CAP_DAC_OVERRIDE  yes      -     -\n\
             CAP_SYS_ADMIN     -        -     yes\n\
             Granted and not used: DAC_OVERRIDE\n\
             \n\
             CHECKED        RESULT  COUNT     USER NS  FIRST                 LAST                  FIRST BY\n\
             CAP_SYS_ADMIN  denied      2  4026531837  2026-01-02T03:04:05Z  2026-01-02T03:04:06Z  b\\x1b[2J (pid 8)\n\
             \nSystem calls, observed for 2h\n\
             GRANTED  USED  DENIED  UNUSED\n\
             \u{20}   300     2       1     298\n\
             \n\
             REFUSED  HOW     ERRNO  COUNT  LAST                  FIRST BY\n\
             mount    denied  EPERM      3  2026-01-02T03:04:05Z  a\\x1b[2J (pid 7)\n\
             \n\
             USED\n\
             close read\n\
             \nAppArmor, observed for 1m\n\
             RESULT   OPERATION  WHAT          MASK  COUNT  FIRST                 LAST                  FIRST BY          PROFILE\n\
             denied   open       /etc/\\x1b[2J  r         3  2026-01-02T03:04:05Z  2026-01-02T03:04:06Z  c\\x1b[2J (pid 9)  web\n\
             allowed  open       /b            r         1  2026-01-02T03:04:05Z  2026-01-02T03:04:06Z  c\\x1b[2J (pid 9)  web\n\
             denied   open       others        r       900  2026-01-02T03:04:05Z  2026-01-02T03:04:06Z  c\\x1b[2J (pid 9)  -\n"
        );
        let nothing = Deeds { seconds: 0, capabilities: None, syscalls: None, apparmor: None };
        assert_eq!(deeds(&nothing, Surface::PLAIN), "");
        let none = Deeds { apparmor: Some(AppArmorDeeds { seconds: 60, denied: vec![] }), ..nothing };
        assert_eq!(deeds(&none, Surface::PLAIN), "\nAppArmor, observed for 1m\nnothing denied\n");
    }
}
