//! Questions to a person on a terminal. Where there is none, the answer must be a flag.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::error::CliError;

/// True where a question can be asked and answered.
pub fn possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a yes. `--yes` answers; without a terminal the error names that flag.
pub fn confirm(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    must_be_possible(question)?;
    match line(&format!("{question} [y/N] "))?.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::refused("the answer was no", "run it again to answer otherwise")),
    }
}

/// An error that names `--yes` where no question can be asked.
pub fn must_be_possible(question: &str) -> Result<(), CliError> {
    if possible() {
        return Ok(());
    }
    Err(CliError::usage(
        format!("a question needs an answer, and there is no terminal to ask on: {question}"),
        "give --yes to answer it",
    ))
}

/// Asks for a line; an empty answer is `default`.
pub fn text(question: &str, default: &str) -> Result<String, CliError> {
    let prompt = if default.is_empty() { format!("{question}: ") } else { format!("{question} [{default}]: ") };
    let answer = line(&prompt)?;
    let answer = answer.trim();
    Ok(if answer.is_empty() { default.to_owned() } else { answer.to_owned() })
}

fn line(prompt: &str) -> Result<String, CliError> {
    let failed = |source| CliError::io("ask on the terminal", source);
    let mut err = io::stderr().lock();
    err.write_all(prompt.as_bytes()).map_err(failed)?;
    err.flush().map_err(failed)?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer).map_err(failed)? == 0 {
        return Err(CliError::refused("the terminal was closed before an answer came", "run it again"));
    }
    Ok(answer)
}
