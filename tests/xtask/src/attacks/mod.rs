//! The attack tests of all crates: those whose names begin with the number of an attack. Runs them
//! and them alone, and writes the page of the book that says how each attack ended.

mod catalogue;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::catalogue::CATALOGUE;
use crate::{
    steps::{Failure, workspace},
    test::{Ended, Run},
};

/// Folders of the workspace that hold code.
const CODE: [&str; 5] = ["vmm", "netdomain", "policy", "guest-tools", "tests"];

/// The page, in the workspace.
const PAGE: &str = "docs/src/attacks.md";

/// The word by which all of them are asked for.
pub(crate) const ALL: &str = "attacks";

/// An attack test, as the source has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct AttackTest {
    /// `T28`.
    id: String,
    /// The name of its function.
    name: String,
    /// The package that it belongs to.
    package: String,
}

/// Runs every attack test and writes the page.
pub(crate) fn all() -> Result<ExitCode, Failure> {
    let reading = |error| Failure::Start("the search for attack tests".to_owned(), error);
    let tests = find(workspace()).map_err(reading)?;
    let packages: BTreeSet<&str> = tests.iter().map(|test| &*test.package).collect();
    let mut arguments: Vec<&str> = vec!["test", "--no-fail-fast", "--tests"];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    arguments.push("--");
    arguments.extend(tests.iter().map(|test| &*test.name));
    let run = Run::of(&arguments)?;
    let page = workspace().join(PAGE);
    fs::write(&page, table(&tests, &run))
        .map_err(|error| Failure::Start(format!("writing {}", page.display()), error))?;
    println!("the table is in {PAGE}");
    Ok(run.conclude())
}

/// The page: a function of the tests and of how they ended.
fn table(tests: &[AttackTest], run: &Run) -> String {
    let mut page = String::from(
        "# Attacks\n\n\
         What an attacker does, the tests that do it to the real programs, how the last run ended, and what shows that\n\
         the judgement can be red. `cargo xtask test attacks` runs these tests and writes this page; the promises that\n\
         they keep are in the [threat model](threat-model.md).\n\n\
         | id | the attacker | tests | outcome | positive control |\n|---|---|---|---|---|\n",
    );
    for attack in CATALOGUE {
        let own: Vec<&AttackTest> = tests.iter().filter(|test| test.id == attack.id).collect();
        let names: Vec<String> = own.iter().map(|test| format!("`{}`", test.name)).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            attack.id,
            attack.does,
            names.join(", "),
            outcome(&own, &run.ended),
            attack.control
        );
    }
    page
}

/// How the tests of one attack ended, in words: the worst of them counts.
fn outcome(tests: &[&AttackTest], ended: &BTreeMap<String, Ended>) -> String {
    if tests.is_empty() {
        return "no test yet".to_owned();
    }
    let named = |how: Option<Ended>| -> Vec<String> {
        tests
            .iter()
            .filter(|test| ended.get(&test.name).copied() == how)
            .map(|test| format!("`{}`", test.name))
            .collect()
    };
    let failed = named(Some(Ended::Failed));
    if !failed.is_empty() {
        return format!("**fails**: {}", failed.join(", "));
    }
    let missing = [named(Some(Ended::Skipped)), named(None)].concat();
    if missing.is_empty() {
        "repelled".to_owned()
    } else {
        format!("not run on this machine: {}", missing.join(", "))
    }
}

/// The attack tests in the sources of the workspace, in the order of their numbers.
fn find(top: &Path) -> io::Result<Vec<AttackTest>> {
    let mut tests = Vec::new();
    for folder in CODE {
        search(&top.join(folder), None, &mut tests)?;
    }
    tests.sort();
    Ok(tests)
}

fn search(folder: &Path, package: Option<&str>, tests: &mut Vec<AttackTest>) -> io::Result<()> {
    let own = package_in(folder)?;
    let package = own.as_deref().or(package);
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            search(&path, package, tests)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path)?;
            tests.extend(names(&text).map(|(id, name)| AttackTest {
                id,
                name,
                package: package.unwrap_or_default().to_owned(),
            }));
        }
    }
    Ok(())
}

/// The name of the package whose folder this is, if it is one.
fn package_in(folder: &Path) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(folder.join("Cargo.toml")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = text
        .lines()
        .skip_while(|line| *line != "[package]")
        .find_map(|line| line.strip_prefix("name = \""))
        .and_then(|rest| rest.split('"').next());
    Ok(name.map(str::to_owned))
}

/// Numbers and names of the attack tests in a source: `fn t28_…(`.
fn names(source: &str) -> impl Iterator<Item = (String, String)> {
    source.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("fn ")?.split('(').next()?;
        let number = name.strip_prefix('t')?.split('_').next()?;
        let is_attack = number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit());
        is_attack.then(|| (format!("T{number}"), name.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attack_test(id: &str, name: &str) -> AttackTest {
        AttackTest {
            id: id.to_owned(),
            name: name.to_owned(),
            package: "sekisho-attacks".to_owned(),
        }
    }

    #[test]
    fn attack_tests_are_known_by_their_names() {
        let source = "fn t28_kills() {\n    fn t29_inside(a: u8) {}\nfn table() {}\nfn t2_short() {}\nlet t30_x = 1;";
        let found: Vec<_> = names(source)
            .map(|(id, name)| format!("{id} {name}"))
            .collect();
        assert_eq!(found, ["T28 t28_kills", "T29 t29_inside"]);
    }

    #[test]
    fn the_worst_outcome_counts() {
        let (one, other) = (
            attack_test("T28", "t28_one"),
            attack_test("T28", "t28_other"),
        );
        let mut ended = BTreeMap::from([("t28_one".to_owned(), Ended::Passed)]);
        let tests = [&one, &other];
        assert_eq!(
            outcome(&tests, &ended),
            "not run on this machine: `t28_other`"
        );
        ended.insert("t28_other".to_owned(), Ended::Passed);
        assert_eq!(outcome(&tests, &ended), "repelled");
        ended.insert("t28_one".to_owned(), Ended::Skipped);
        assert_eq!(
            outcome(&tests, &ended),
            "not run on this machine: `t28_one`"
        );
        ended.insert("t28_other".to_owned(), Ended::Failed);
        assert_eq!(outcome(&tests, &ended), "**fails**: `t28_other`");
        assert_eq!(outcome(&[], &ended), "no test yet");
    }

    /// The page is made by a run; a test that was written since is missing there until the next one.
    #[test]
    fn the_book_has_each_attack_test() {
        let tests = find(workspace()).unwrap();
        assert!(tests.len() > 60, "only {} attack tests", tests.len());
        let page = fs::read_to_string(workspace().join(PAGE)).unwrap();
        let quoted: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
        for test in &tests {
            assert!(
                CATALOGUE.iter().any(|attack| attack.id == test.id),
                "{} is no number of the catalogue",
                test.name
            );
            assert!(
                quoted.contains(&*test.name),
                "{} is not in {PAGE}; run `cargo xtask test attacks`",
                test.name
            );
        }
        for name in quoted
            .iter()
            .filter(|word| names(&format!("fn {word}(")).count() == 1)
        {
            assert!(
                tests.iter().any(|test| test.name == *name),
                "{name} is in {PAGE}, but not in the sources"
            );
        }
    }
}
