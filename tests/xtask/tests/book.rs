//! The book says what is so: each test that it names exists, and each link leads somewhere.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the workspace that hold code.
const CODE: [&str; 5] = ["vmm", "netdomain", "policy", "guest-tools", "tests"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![top().join("README.md")];
    files(&top().join("docs/src"), "md", &mut pages);
    pages
}

/// Names of functions, and of the journey's steps, which are tests as well.
fn names_of_tests() -> HashSet<String> {
    let mut sources = Vec::new();
    for folder in CODE {
        files(&top().join(folder), "rs", &mut sources);
    }
    let mut names = HashSet::new();
    for source in &sources {
        let text = read(source);
        for line in text.lines().map(str::trim_start) {
            if let Some((name, _)) = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.split_once('('))
            {
                names.insert(name.to_owned());
            }
            if let Some(step) = line
                .strip_prefix("name: \"")
                .and_then(|rest| rest.split_once('"'))
            {
                names.insert(format!("journey_{}", step.0.replace('-', "_")));
            }
        }
    }
    names
}

#[test]
fn each_test_that_the_threat_model_names_exists() {
    let known = names_of_tests();
    let text = read(&top().join("docs/src/threat-model.md"));
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('_') && *word != "compile_fail")
        .filter(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .collect();
    assert!(
        named.len() > 40,
        "the threat model names its tests in backticks"
    );
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !known.contains(**name))
        .collect();
    assert!(
        missing.is_empty(),
        "the threat model names tests that are not there: {missing:?}"
    );
}

#[test]
fn each_link_leads_to_a_page_and_a_heading() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = read(&page);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                file => page.with_file_name(file),
            };
            // A picture is a file too.
            let found = fs::read(&file).is_ok_and(|bytes| {
                let text = String::from_utf8_lossy(&bytes);
                anchor.is_empty() || headings(&text).any(|it| it == anchor)
            });
            if !found {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

/// Headings as the anchors that pages get.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading
                .replace(' ', "-")
                .replace(|c: char| !c.is_alphanumeric() && c != '-', "")
        })
}

#[test]
fn each_page_is_in_the_table_of_contents() {
    let contents = read(&top().join("docs/src/SUMMARY.md"));
    for page in pages().iter().skip(1) {
        let name = page
            .file_name()
            .and_then(|name| name.to_str())
            .expect("pages have plain names");
        assert!(
            name == "SUMMARY.md" || contents.contains(&format!("]({name})")),
            "{name}"
        );
    }
}
