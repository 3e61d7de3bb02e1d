//! The manual pages of a program, made from its arguments. `man` commands print them, and `conf/man` has them for the package: a
//! test fails when those are out of date.
//!
//! clap_mangen would join the lines of examples into a paragraph, so the sections after the options are written here.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// What manual pages say that arguments do not tell.
pub struct Manual {
    /// The files that a service of the package uses, and what they are for.
    pub files: &'static [(&'static str, &'static str)],
    /// The pages of other programs.
    pub see_also: &'static [&'static str],
}

/// The arguments of a `man` command.
#[derive(clap::Args)]
pub struct ManArgs {
    /// The command whose page is printed, like `ctl drain` [default: the program itself]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write the pages of the program and of all of its commands into this directory, which is created if it is missing
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "It has done what was asked."),
    ("1", "It failed; the last line on standard error says why."),
    ("2", "There are mistakes in the arguments or in the configuration. Nothing was changed."),
];

/// Prints the page of a command, or writes all pages. `program` has not been built yet.
pub fn run(args: &ManArgs, program: Command, manual: &Manual) -> ExitCode {
    let name = program.get_name().to_owned();
    let pages = pages(program, manual);
    let failed = |error: String| {
        let _ = writeln!(io::stderr().lock(), "{name}: {error}");
        ExitCode::FAILURE
    };
    if let Some(folder) = &args.dir {
        return match write(folder, &pages) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(error),
        };
    }
    let wanted = [std::slice::from_ref(&name), &args.command].concat();
    match pages.iter().find(|page| page.name == wanted.join("-")) {
        Some(page) => {
            // Whoever reads it may stop reading.
            let _ = io::stdout().lock().write_all(page.text.as_bytes());
            ExitCode::SUCCESS
        }
        None => {
            failed(format!(
                "there is no command `{}`; `{name} help` lists the commands",
                wanted[1..].join(" ")
            ));
            ExitCode::from(2)
        }
    }
}

/// A page of section 1.
#[derive(Clone)]
pub struct Page {
    /// As in `man NAME`.
    pub name: String,
    pub text: String,
}

fn write(folder: &Path, pages: &[Page]) -> Result<(), String> {
    let cannot = |path: &Path, error: io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    for page in pages {
        let path = folder.join(format!("{}.1", page.name));
        fs::write(&path, &page.text).map_err(|error| cannot(&path, error))?;
    }
    Ok(())
}

/// The pages of a program and of its commands, the program's first.
pub fn pages(program: Command, manual: &Manual) -> Vec<Page> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let source = format!("{} {}", program.get_name(), env!("CARGO_PKG_VERSION"));
    let mut pages = Vec::new();
    add(&mut pages, &program, None, &source, manual);
    pages
}

fn add(pages: &mut Vec<Page>, command: &Command, parent: Option<&str>, source: &str, manual: &Manual) {
    let name = match parent {
        Some(parent) => format!("{parent}-{}", command.get_name()),
        None => command.get_name().to_owned(),
    };
    pages.push(Page { text: page(&name, command, parent, source, manual), name: name.clone() });
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        add(pages, command, Some(&name), source, manual);
    }
}

fn page(name: &str, command: &Command, parent: Option<&str>, source: &str, manual: &Manual) -> String {
    let man = Man::new(command.clone().display_name(name));
    // clap_mangen leaves out an empty date, and what follows would be taken for it.
    let title = name.replace('-', "\\-");
    let mut text = format!(".TH \"{title}\" 1 \"\" \"{source}\" \"User Commands\"\n").into_bytes();
    let mut rest = Roff::default();
    examples_and_notes(&mut rest, command);
    definitions(&mut rest, "EXIT STATUS", EXIT_STATUS);
    definitions(&mut rest, "FILES", manual.files);
    see_also(&mut rest, name, command, parent, manual);
    let mut written = man
        .render_name_section(&mut text)
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text));
    if command.has_subcommands() {
        written = written.and_then(|()| man.render_subcommands_section(&mut text));
    }
    written.and_then(|()| rest.to_writer(&mut text)).expect("a vector takes every byte");
    let text = String::from_utf8(text).expect("clap takes UTF-8 only");
    // clap_mangen breaks the line, and once more around an empty line.
    text.replace("\n.br\n\n.br\n", "\n.sp\n")
}

/// The paragraphs after the options in the help. Indented lines are commands, which must stay lines.
fn examples_and_notes(roff: &mut Roff, command: &Command) {
    let help = command.get_after_long_help().or(command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let (examples, notes): (Vec<_>, Vec<_>) =
        help.split("\n\n").filter(|text| !text.trim().is_empty()).partition(|text| text.contains("\n  "));
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
    }
    for (n, example) in examples.into_iter().enumerate() {
        let (heading, commands) = example.split_once('\n').unwrap_or_default();
        if n > 0 {
            roff.control("PP", []);
        }
        if heading != "Examples:" {
            roff.text([roman(heading)]);
        }
        roff.control("nf", []);
        for line in commands.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
    }
    for (n, note) in notes.into_iter().enumerate() {
        if n > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(note)]);
    }
}

fn definitions(roff: &mut Roff, heading: &str, definitions: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in definitions {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

/// The pages above and below this one, those of the other programs, and the documentation.
fn see_also(roff: &mut Roff, name: &str, command: &Command, parent: Option<&str>, manual: &Manual) {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    let below = below.map(|command| format!("{name}-{}", command.get_name()));
    let above = parent.map(ToOwned::to_owned);
    let others = manual.see_also.iter().filter(|_| parent.is_none()).map(ToString::to_string);
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for page in above.into_iter().chain(others).chain(below) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(page), roman("(1)")]);
    }
    roff.text(line);
    roff.control("PP", []);
    roff.text([roman("The documentation, docs/ in these pages, is in /usr/share/doc/hairpin/docs.")]);
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    const MANUAL: Manual = Manual { files: &[("/etc/tool.toml", "Its settings.")], see_also: &["other"] };

    fn tool() -> Command {
        let set = Command::new("set").about("Set it").arg(Arg::new("to").long("to").help("The value"));
        let peers = Command::new("peers").about("Peers").subcommand(set);
        Command::new("tool").about("A tool").subcommand(peers).subcommand(Command::new("secret").hide(true)).after_help(
            "From nothing:\n  tool init\n\nExamples:\n  tool peers set --to 1   one\n  .hidden 'quoted'\n\nIt is small.",
        )
    }

    fn text_of(name: &str) -> String {
        let page = pages(tool(), &MANUAL).into_iter().find(|page| page.name == name).unwrap();
        page.text
    }

    #[test]
    fn every_command_but_hidden_ones_has_a_page() {
        let names: Vec<_> = pages(tool(), &MANUAL).into_iter().map(|page| page.name).collect();
        assert_eq!(names, ["tool", "tool-peers", "tool-peers-set"]);
        assert!(text_of("tool-peers-set").contains("tool\\-peers\\-set \\- Set it"));
        assert!(text_of("tool-peers").contains("tool\\-peers\\-set(1)"));
    }

    /// roff(7): lines are filled unless a request says otherwise, and a line that starts with a dot or a quote is a request.
    #[test]
    fn examples_stay_lines_of_their_own() {
        let page = text_of("tool");
        let (_, examples) = page.split_once(".SH EXAMPLES").unwrap();
        assert!(examples.contains("From nothing:\n.nf\n  tool init\n.fi"), "{page}");
        assert!(examples.contains(".nf\n  tool peers set \\-\\-to 1   one\n  .hidden"), "{page}");
        assert!(page.contains(".SH NOTES\nIt is small."), "{page}");
    }

    #[test]
    fn pages_tell_files_statuses_and_related_pages() {
        let page = text_of("tool");
        for part in [
            ".SH \"EXIT STATUS\"",
            ".SH FILES",
            "/etc/tool.toml",
            "\\fBother\\fR(1), \\fBtool\\-peers\\fR(1)",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(
            text_of("tool-peers")
                .contains(".SH \"SEE ALSO\"\n\\fBtool\\fR(1), \\fBtool\\-peers\\-set\\fR(1)")
        );
    }
}
