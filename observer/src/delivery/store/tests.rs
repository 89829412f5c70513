use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

/// A directory that goes away.
pub(in crate::delivery) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("observer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn records(numbers: impl IntoIterator<Item = u64>, bytes: usize) -> Vec<Record> {
    let json = |seq: u64| Bytes::from(format!("{{\"n\":{seq},\"x\":\"{}\"}}", "x".repeat(bytes)));
    numbers.into_iter().map(|seq| Record { seq, json: json(seq) }).collect()
}

fn cursors<const N: usize>(list: [(&str, u64); N]) -> BTreeMap<String, u64> {
    list.into_iter().map(|(name, seq)| (name.to_owned(), seq)).collect()
}

fn numbers(store: &Store) -> Vec<u64> {
    store.read(0, usize::MAX, u64::MAX).expect("readable").iter().map(|it| it.seq).collect()
}

const MAX: u64 = 8 << 20;

#[test]
fn what_was_committed_is_there_again_and_what_all_have_is_not() {
    let scratch = Scratch::new("store-again");
    let mut cost = 0;
    {
        let (store, opened) = Store::open(&scratch.0, MAX, &["a", "b"]).expect("opened");
        assert_eq!(opened, Opened::default());
        assert_eq!(fs::metadata(&scratch.0).expect("made").permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(scratch.0.join(FILE)).expect("made").permissions().mode() & 0o777, 0o600);
        store
            .commit(&records(1..=5, 10), Some(&cursors([("a", 0), ("b", 0)])), &mut cost)
            .expect("committed");
        store.commit(&[], Some(&cursors([("a", 4), ("b", 2)])), &mut cost).expect("committed");
        assert!(matches!(Store::open(&scratch.0, MAX, &[]), Err(StoreError::InUse { .. })));
    }
    let (store, _) = Store::open(&scratch.0, MAX, &["a", "b"]).expect("opened");
    assert_eq!(numbers(&store), [3, 4, 5]);
    let contents = store.contents().expect("contents");
    assert_eq!(contents, Contents { cursors: cursors([("a", 4), ("b", 2)]), last: 5, cost });
    assert_eq!(store.read(3, 1, u64::MAX).expect("read"), records([4], 10));
    assert_eq!(store.read(2, 9, 1).expect("read").len(), 1, "one always comes");
    // A sink that is no more holds nothing back; the numbers go on.
    store.commit(&[], Some(&cursors([("a", 5)])), &mut cost).expect("committed");
    assert_eq!((store.contents().expect("contents").last, cost), (5, 0));
    // Without sinks nothing is kept.
    store.commit(&records(6..=9, 10), Some(&BTreeMap::new()), &mut cost).expect("committed");
    assert_eq!((numbers(&store), cost), (Vec::new(), 0));
}

#[test]
fn it_stays_within_its_bound_and_the_oldest_go_first() {
    let scratch = Scratch::new("store-bound");
    let (store, _) = Store::open(&scratch.0, MAX, &["a"]).expect("opened");
    let (mut cost, mut evicted) = (0, Vec::new());
    // Sizes that lie badly in pages, twice what fits.
    for n in 0..100u64 {
        let size = [300, 1400, 2100, 4200, 9000][n as usize % 5];
        let batch = records(n * 50 + 1..=n * 50 + 50, size);
        evicted
            .extend(store.commit(&batch, Some(&cursors([("a", 0)])), &mut cost).expect("committed").evicted);
    }
    let left = numbers(&store);
    assert_eq!(evicted, (1..left[0]).collect::<Vec<_>>());
    assert_eq!(left, (left[0]..=5_000).collect::<Vec<_>>());
    assert!(evicted.len() > 1_000 && cost <= MAX / 5 * 2, "{} {cost}", evicted.len());
    let disk = fs::metadata(scratch.0.join(FILE)).expect("there").blocks() * 512;
    assert!(disk <= MAX, "{disk} bytes on the disk");
}

/// Everything that can be wrong with a file: it opens, and whatever frame is whole is found.
#[test]
fn a_damaged_file_is_searched() {
    let scratch = Scratch::new("store-damaged");
    {
        let (store, _) = Store::open(&scratch.0, MAX, &["a"]).expect("opened");
        let mut cost = 0;
        for n in 0..20 {
            let batch = records(n * 10 + 1..=n * 10 + 10, 700);
            store.commit(&batch, Some(&cursors([("a", n * 5)])), &mut cost).expect("committed");
        }
        assert_eq!(numbers(&store), (96..=200).collect::<Vec<_>>());
    }
    let file = scratch.0.join(FILE);
    let good = fs::read(&file).expect("the file");
    let mut random = fastrand::Rng::with_seed(7);
    let (mut salvages, mut most) = (0, 0);
    for n in 0..60 {
        let mut bad = good.clone();
        match n % 3 {
            0 => bad.truncate(random.usize(..good.len())),
            1 => {
                let page = random.usize(..good.len() / 4096) * 4096;
                bad[page..page + 4096].fill_with(|| random.u8(..));
            }
            _ => bad[random.usize(..good.len())] ^= 1 << random.u8(..8),
        }
        fs::write(&file, &bad).expect("written");
        let (store, opened) = Store::open(&scratch.0, MAX, &["a"]).expect("opened");
        let left = numbers(&store);
        if let Some(count) = opened.salvaged {
            salvages += 1;
            most = most.max(count);
            assert_eq!(left.len() as u64, count);
            // One page holds at most five of these.
            assert!(n % 3 == 0 || left.iter().filter(|it| **it > 95).count() >= 100, "{n}: {left:?}");
            assert_eq!(store.contents().expect("contents").cursors.keys().collect::<Vec<_>>(), ["a"]);
        } else {
            assert_eq!(left.len(), 105, "{n}");
        }
        assert!(!scratch.0.join(DAMAGED).exists());
        drop(store);
        let _ = fs::remove_file(&file);
    }
    assert!(salvages > 30 && most >= 100, "{salvages} {most}");
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    for (directory, words) in [("/proc/nothing", "/proc/nothing: "), ("/dev/null", "/dev/null")] {
        let error = Store::open(Path::new(directory), MAX, &[]).expect_err("no directory").to_string();
        assert!(error.starts_with(words) && error.lines().count() == 1, "{error}");
    }
}
