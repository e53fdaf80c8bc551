//! `sekisho-lab [--draw | --svg]`: shows the lab, or builds it and holds it for who wants to look
//! around inside.

use std::process::ExitCode;

use clap::Parser;
use sekisho_lab::{Lab, Options, draw, draw_svg};

/// The world outside the laptop. Without an option: builds it and holds it until Ctrl-C.
#[derive(Parser)]
#[command(name = "sekisho-lab", version)]
struct Cli {
    /// Draw it as text.
    #[arg(long)]
    draw: bool,
    /// Draw it as an SVG picture.
    #[arg(long)]
    svg: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.svg {
        print!("{}", draw_svg());
        return ExitCode::SUCCESS;
    }
    if cli.draw {
        print!("{}", draw());
        return ExitCode::SUCCESS;
    }
    match Lab::start(Options::default()) {
        Ok(lab) => hold(&lab),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says how to get in, and waits to be interrupted; the kernel clears everything away then.
fn hold(lab: &Lab) -> ExitCode {
    println!(
        "The lab runs; logs and captures are in {}. Ctrl-C ends it.",
        lab.dir().display()
    );
    let nodes = lab
        .topology()
        .nodes
        .iter()
        .map(|node| (node.name, node.about));
    for (name, about) in nodes.chain([(
        "laptop",
        "the laptop's seat: eth0 in the cafe, eth1 in the office",
    )]) {
        if let Ok(space) = lab.space(name) {
            println!(
                "  nsenter --net={} bash   # {name}: {about}",
                space.path().display()
            );
        }
    }
    loop {
        std::thread::park();
    }
}
