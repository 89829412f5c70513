use super::*;

#[test]
fn the_table_is_in_order_and_no_name_is_a_mask() {
    for (number, it) in CAPABILITIES.iter().enumerate() {
        assert_eq!(usize::from(it.number), number);
        assert!(it.name.starts_with("CAP_") && it.short() != it.name, "{}", it.name);
        assert!(!it.allows.is_empty() && it.allows.is_ascii() && !it.allows.ends_with('.'), "{}", it.name);
        for name in [it.name, it.short()] {
            assert!(CapSet::from_mask(name).is_err(), "{name} could be either");
            assert_eq!(Capability::by_name(name), Some(it));
            assert_eq!(Capability::by_name(&name.to_lowercase()), Some(it));
        }
    }
    assert_eq!(CapSet::ALL.len() as usize, CAPABILITIES.len());
}

#[test]
fn words() {
    const NET_ADMIN: u64 = 1 << 12;
    for (word, expected) in [
        ("NET_ADMIN", NET_ADMIN),
        ("cap_net_admin", NET_ADMIN),
        ("Cap_Net_Admin", NET_ADMIN),
        ("bpf", 1 << 39),
        ("ALL", 0x1ff_ffff_ffff),
        ("all", 0x1ff_ffff_ffff),
        ("cap_all", 0x1ff_ffff_ffff),
        ("FED", 0xfed),
        ("0", 0),
        ("0x1", 1),
        ("0X1F", 0x1f),
        ("00000000a80425fb", 0xa804_25fb),
        ("FFFFFFFFFFFFFFFF", u64::MAX),
        ("0x0000000000000000000001", 1),
    ] {
        assert_eq!(word.parse::<CapSet>(), Ok(CapSet(expected)), "{word}");
    }
}

#[test]
fn words_that_are_none_are_told_with_what_was_meant() {
    for (word, nearest) in [
        ("NET_ADMN", Some("NET_ADMIN")),
        ("cap_sysadmin", Some("SYS_ADMIN")),
        ("sys-ptrace", Some("SYS_PTRACE")),
        ("CAP_FED", None),
        ("", None),
        ("0x", None),
        ("+5", None),
        ("-1", None),
        ("zzz", None),
        ("caäp", None),
    ] {
        let error = word.parse::<CapSet>().expect_err(word);
        assert_eq!(error, CapError::Unknown { word: word.into(), nearest }, "{word}");
    }
    assert_eq!(
        "NET_ADMN".parse::<CapSet>().expect_err("no name").to_string(),
        "`NET_ADMN` is neither a capability (did you mean `NET_ADMIN`?) nor a mask of up to 16 hexadecimal digits"
    );
    assert!(matches!("1ffffffffffffffff".parse::<CapSet>(), Err(CapError::TooLong { .. })));
    let CapError::Unknown { word, .. } = "x".repeat(100_000).parse::<CapSet>().expect_err("no name") else {
        panic!("another error");
    };
    assert_eq!(word.chars().count(), 41);
}

#[test]
fn sets() {
    let set = CapSet::DOCKER_DEFAULT.without(CapSet::of(&[13])) | CapSet::of(&[21, 63]);
    assert_eq!(set.to_string(), "80000000a82405fb");
    assert_eq!(set.len(), 15);
    assert_eq!(set.beyond_default().names(), ["SYS_ADMIN", "bit 63"]);
    assert_eq!(set.missing_from_default().names(), ["NET_RAW"]);
    assert_eq!(set.unknown_bits().collect::<Vec<_>>(), [63]);
    assert!(set.contains(21) && set.contains(63) && !set.contains(13) && !set.contains(64));
    assert!(CapSet::DOCKER_DEFAULT.beyond_default().is_empty());
    assert_eq!(
        CapSet::DOCKER_DEFAULT.names().join(" "),
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD \
         AUDIT_WRITE SETFCAP"
    );
}

#[test]
fn json_is_the_text_of_proc_status() {
    let json = serde_json::to_string(&CapSet::DOCKER_DEFAULT).expect("JSON");
    assert_eq!(json, "\"00000000a80425fb\"");
    assert_eq!(serde_json::from_str::<CapSet>(&json).expect("a set"), CapSet::DOCKER_DEFAULT);
    assert!(serde_json::from_str::<CapSet>("\"NET_ADMIN\"").is_err());
    assert!(serde_json::from_str::<CapSet>("5").is_err());
}
