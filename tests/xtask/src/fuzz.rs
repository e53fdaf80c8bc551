//! Fuzzing in earnest: libFuzzer on every target, several at a time, and a table at the end.

mod summary;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use self::summary::Summary;
use crate::packages::{self, Need};
use crate::steps::{Failure, cargo, done, say, wait, workspace};

/// The package of libFuzzer's programs, in the workspace's folder but no member of it.
const PACKAGE: &str = "tests/fuzz/libfuzzer";
/// Seeds, one folder a target.
const CORPUS: &str = "tests/fuzz/corpus";
/// The sanitizer's coverage needs flags that stable only takes when told so.
const BOOTSTRAP: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");
/// cargo-fuzz always names the target to rustc, so that build scripts are not instrumented.
const BUILT: &str = "target/x86_64-unknown-linux-gnu/release";

/// One input that takes longer is a hang: the slowest seed takes a few milliseconds.
const SLOWEST_INPUT_SECONDS: u32 = 10;
/// A target that needs more has no bound somewhere; the sanitizer itself takes some hundred.
const MEMORY_MIB: u32 = 2048;
/// How often the running programs are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The targets; none means all.
    targets: Vec<String>,
    /// For how many seconds each.
    #[arg(long, default_value_t = 60, conflicts_with = "minutes")]
    seconds: u32,
    /// For how many minutes each.
    #[arg(long)]
    minutes: Option<u32>,
    /// How many at a time; as many as there are processors if not said.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Say which targets there are.
    #[arg(long)]
    list: bool,
    /// Build, say how to run each by hand, and do not run.
    #[arg(long, conflicts_with = "list")]
    build: bool,
}

/// Runs targets, and says how each went. A crash is a failure.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let names = targets(&args.targets)?;
    if args.list {
        println!("{}", names.join("\n"));
        return Ok(ExitCode::SUCCESS);
    }
    build(&args.targets)?;
    let minutes = args.minutes.map(|minutes| minutes.saturating_mul(60));
    let seconds = minutes.unwrap_or(args.seconds);
    let targets: Vec<Target> = names.into_iter().map(Target::new).collect();
    for target in &targets {
        target.make_folders()?;
        if args.build {
            println!("{}", target.words(seconds).join(" "));
        }
    }
    if args.build {
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = args
        .jobs
        .or_else(|| thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let started = say(&format!(
        "fuzzing {} targets for {} s each, {jobs} at a time",
        targets.len(),
        seconds
    ));
    let ended = run_all(targets, seconds, jobs)?;
    done(started);
    print!("{}", summary::table(&ended));
    let well = ended.iter().all(|summary| summary.crash.is_none());
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The targets that were asked for, or all, by the names of their programs.
fn targets(wanted: &[String]) -> Result<Vec<String>, Failure> {
    let folder = workspace().join(PACKAGE).join("fuzz_targets");
    let reading = |error| Failure::Start(format!("reading {}", folder.display()), error);
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        names.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    if let Some(unknown) = wanted.iter().find(|wanted| !names.contains(wanted)) {
        return Err(Failure::Step(format!(
            "{unknown} is no fuzz target; they are {}: this",
            names.join(", ")
        )));
    }
    if !wanted.is_empty() {
        names.retain(|name| wanted.contains(name));
    }
    Ok(names)
}

fn build(wanted: &[String]) -> Result<(), Failure> {
    packages::install(&[Need::Build, Need::Fuzz])?;
    let there = cargo().args(["fuzz", "--version"]).output();
    if !there.is_ok_and(|answer| answer.status.success()) {
        let started = say("installing cargo-fuzz (once)");
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "cargo-fuzz"]);
        if !wait(&mut install, "cargo install")?.success() {
            return Err(Failure::Step("installing cargo-fuzz".to_owned()));
        }
        done(started);
    }
    let started = say("building with the sanitizer");
    let mut build = cargo();
    build
        .env(BOOTSTRAP.0, BOOTSTRAP.1)
        // The programs are looked for where cargo-fuzz puts them by itself.
        .env_remove("CARGO_TARGET_DIR")
        .args(["fuzz", "build", "--fuzz-dir", PACKAGE]);
    if let [one] = wanted {
        build.arg(one);
    }
    if !wait(&mut build, "cargo fuzz")?.success() {
        return Err(Failure::Step("cargo fuzz build".to_owned()));
    }
    done(started);
    Ok(())
}

/// One target's files.
#[derive(Debug)]
struct Target {
    name: String,
    program: PathBuf,
    seeds: PathBuf,
    /// Inputs that reached something new; only here until one of them becomes a seed.
    found: PathBuf,
    /// Inputs that crashed it.
    crashes: PathBuf,
    log: PathBuf,
}

impl Target {
    fn new(name: String) -> Self {
        let package = workspace().join(PACKAGE);
        Self {
            program: package.join(BUILT).join(&name),
            seeds: workspace().join(CORPUS).join(&name),
            found: package.join("found").join(&name),
            crashes: package.join("artifacts").join(&name),
            log: package.join("logs").join(format!("{name}.log")),
            name,
        }
    }

    fn make_folders(&self) -> Result<(), Failure> {
        let log = self.log.parent().unwrap_or(&self.log);
        for folder in [&self.found, &self.crashes, log] {
            fs::create_dir_all(folder)
                .map_err(|error| Failure::Start(format!("making {}", folder.display()), error))?;
        }
        Ok(())
    }

    /// Program and arguments (`-help=1` of any libFuzzer program).
    fn words(&self, seconds: u32) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        vec![
            text(&self.program),
            format!("-max_total_time={seconds}"),
            format!("-timeout={SLOWEST_INPUT_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
            "-print_final_stats=1".to_owned(),
            format!("-artifact_prefix={}/", text(&self.crashes)),
            // New inputs go into the first folder, the others are only read.
            text(&self.found),
            text(&self.seeds),
        ]
    }

    fn start(self, seconds: u32) -> io::Result<Running> {
        let log = File::create(&self.log)?;
        let words = self.words(seconds);
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Running {
            target: self,
            child,
            started: Instant::now(),
        })
    }
}

/// One of libFuzzer's programs at work.
struct Running {
    target: Target,
    child: Child,
    started: Instant,
}

impl Running {
    fn summary(&self, status: ExitStatus) -> Summary {
        let log = fs::read(&self.target.log).unwrap_or_default();
        let summary = Summary::read(&self.target.name, &String::from_utf8_lossy(&log));
        Summary {
            took: self.started.elapsed(),
            crash: (!status.success()).then(|| {
                let log = self.target.log.display();
                let input = summary.crash.as_deref().unwrap_or("no input was kept");
                format!("{input}; see {log}")
            }),
            ..summary
        }
    }
}

/// Runs all, so many at a time, and tells of each end as it comes.
fn run_all(targets: Vec<Target>, seconds: u32, jobs: usize) -> Result<Vec<Summary>, Failure> {
    let mut waiting = VecDeque::from(targets);
    let mut running: Vec<Running> = Vec::new();
    let mut ended = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < jobs
            && let Some(target) = waiting.pop_front()
        {
            let name = target.name.clone();
            match target.start(seconds) {
                Ok(started) => running.push(started),
                Err(error) => {
                    for other in &mut running {
                        let _ = other.child.kill();
                    }
                    return Err(Failure::Start(name, error));
                }
            }
        }
        thread::sleep(LOOK);
        let mut still = Vec::new();
        for mut one in running {
            let status = one
                .child
                .try_wait()
                .map_err(|error| Failure::Start(one.target.name.clone(), error))?;
            match status {
                None => still.push(one),
                Some(status) => {
                    let summary = one.summary(status);
                    eprintln!("   {}", summary.line());
                    ended.push(summary);
                }
            }
        }
        running = still;
    }
    ended.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(ended)
}
