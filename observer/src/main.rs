use observer::kernel::*;
fn main() {
    let t=std::time::Instant::now();
    let mut k = Kernel::load(LoadOptions { events_bytes: 4<<20, priority_bytes: 1<<20 }).unwrap();
    println!("loaded {:?}", t.elapsed());
    for p in &k.probes { println!("{} {:?}", p.probe.program, p.result); }
    println!("{:?}", k.host().is_ok());
    for f in std::fs::read_dir("/proc/self/fdinfo").unwrap() { let t=std::fs::read_to_string(f.unwrap().path()).unwrap_or_default(); if t.contains("verified_insns") { println!("{}", t.lines().filter(|l| l.contains("verified_insns")||l.contains("prog_tag")||l.contains("prog_type")).collect::<Vec<_>>().join(" ")); } }
}
