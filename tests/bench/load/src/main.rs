//! `sekisho-load`: runs one load after the other, as lines on its standard input say, until it ends.

use std::io::{self, BufRead as _, Write as _};

use sekisho_load::{Load, READY, run};

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = line.parse::<Load>().map_err(io::Error::other);
        match answer.and_then(|load| run(&load)) {
            Ok(ran) => writeln!(out, "{ran}")?,
            Err(error) => writeln!(out, "LOAD-FAILED {line}: {error}")?,
        }
    }
    Ok(())
}
