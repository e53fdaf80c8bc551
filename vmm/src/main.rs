fn main() {
    use sekisho_vmm::board::{Board, Equipment};
    use sekisho_vmm::boot::LinuxBoot;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::DEBUG).init();
    let args: Vec<String> = std::env::args().collect();
    let board = Board::new(Equipment { memory: 256 << 20, cpus: args[4].parse().unwrap(), ps2: false, serial: Some(Box::new(std::io::stdout())) }).unwrap();
    let mut k = std::fs::File::open(&args[1]).unwrap();
    let mut i = std::fs::File::open(&args[2]).unwrap();
    let panel = board.panel.clone();
    let loaded = board.load(LinuxBoot { kernel: (&mut k, "k"), initrd: Some((&mut i, "i")), cmdline: &args[3] }).unwrap();
    loaded.switch_on(|| {}).unwrap();
    while !panel.power.ended() { std::thread::sleep(std::time::Duration::from_millis(5)); }
    eprintln!("{:?}", panel.power.ending());
    std::process::exit(panel.power.ending().unwrap().status().into());
}
