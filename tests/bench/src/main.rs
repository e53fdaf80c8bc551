//! `sekisho-bench`: measures Sekisho beside its peers.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sekisho_bench::{BENCHES, BenchError, MIN_RUNS, Options, PARTS, report::Report};

fn command() -> Command {
    let runs = Arg::new("runs")
        .long("runs")
        .value_name("N")
        .help("Paired runs of each measurement")
        .value_parser(value_parser!(u16).range(i64::try_from(MIN_RUNS).unwrap_or(5)..))
        .default_value("7")
        .global(true);
    let json = Arg::new("json")
        .long("json")
        .help("Print one JSON object, with a `bars` list, instead of tables")
        .action(ArgAction::SetTrue)
        .global(true);
    let part = Command::new("part")
        .hide(true)
        .arg(Arg::new("name").required(true))
        .arg(Arg::new("arguments").num_args(0..).trailing_var_arg(true));
    BENCHES
        .iter()
        .map(|bench| Command::new(bench.name).about(bench.about))
        .chain([Command::new("all").about("all of them"), part])
        .fold(Command::new("sekisho-bench"), Command::subcommand)
        .about("Measures Sekisho beside its peers, paired in the same run")
        .after_help(
            "Without a command all of them run. The exit status is 0 when everything could be \
             measured, whether or not the bars hold.",
        )
        .args([runs, json])
}

fn main() -> ExitCode {
    match measure(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sekisho-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(matches: &ArgMatches) -> Result<(), BenchError> {
    let (chosen, arguments) = matches.subcommand().unwrap_or(("all", matches));
    if chosen == "part" {
        return run_part(arguments);
    }
    let options = Options {
        runs: arguments
            .get_one::<u16>("runs")
            .map_or(MIN_RUNS, |runs| usize::from(*runs)),
    };
    let mut report = Report::default();
    for bench in BENCHES {
        if chosen == bench.name || chosen == "all" {
            report.append((bench.run)(options)?);
        }
    }
    if arguments.get_flag("json") {
        sekisho_bench::part::tell(&report)
    } else {
        print!("{report}");
        Ok(())
    }
}

fn run_part(arguments: &ArgMatches) -> Result<(), BenchError> {
    let name = arguments.get_one::<String>("name");
    let rest: Vec<String> = arguments
        .get_many::<String>("arguments")
        .unwrap_or_default()
        .cloned()
        .collect();
    let part = PARTS
        .iter()
        .find(|part| Some(part.name) == name.map(String::as_str));
    match part {
        Some(part) => (part.run)(&rest),
        None => Err(BenchError::Missing("there is no such part".to_owned())),
    }
}
