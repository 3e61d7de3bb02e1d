//! `hairpin import-coturn`: reads `turnserver.conf` and coturn's SQLite database, and writes a configuration that `hairpin check`
//! accepts. The translation itself is in [`config::coturn`](coturn).

mod output;
mod turndb;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::config::coturn::{self, Database, DatabaseOf, Import, Input, Weight};
use crate::config::files::{FILE_MAX, unreadable};
use crate::config::{FileContents, Finding};
use crate::daemon::{self, MISTAKES, configuration, random, reading};
use crate::plural::counted;
use crate::text;

/// The arguments of `hairpin import-coturn`.
#[derive(clap::Args)]
pub struct ImportArgs {
    /// The configuration of coturn
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The SQLite database of coturn [default: `userdb` of the configuration, otherwise /var/lib/turn/turndb if there is one]
    #[arg(long, value_name = "FILE")]
    turndb: Option<PathBuf>,
    /// The realm, instead of that of the configuration: one of the database, or the domain name of the machine
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,
    /// The file to write; `-` is standard output [default: hairpin.toml, or standard output if that is a file]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Import a relay that serves everybody (`no-auth`, or neither users nor a shared secret). hairpin never does: clients need
    /// credentials, made from a shared secret that is generated if the configuration has none
    #[arg(long)]
    allow_anonymous: bool,
}

/// Where coturn keeps its database if its configuration does not say so: Debian's place, then those of its source.
const DATABASES: [&str; 3] = ["/var/lib/turn/turndb", "/var/db/turndb", "/usr/local/var/db/turndb"];

/// Why nothing was written.
enum Failure {
    /// Mistakes in the arguments or in the configuration.
    Mistakes(Vec<Finding>),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Other(error)
    }
}

pub fn run(args: &ImportArgs) -> ExitCode {
    match import(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Mistakes(mistakes)) => {
            daemon::print_findings(&mistakes);
            say("nothing was written");
            MISTAKES.into()
        }
        Err(Failure::Other(error)) => {
            say(&format!("hairpin: {error:#}; nothing was written"));
            ExitCode::FAILURE
        }
    }
}

fn import(args: &ImportArgs) -> Result<(), Failure> {
    let out = Output::new(args);
    let (config, users) = out.files();
    let must_be_new = |paths: &[PathBuf]| if args.force { Ok(()) } else { output::must_be_new(paths) };
    must_be_new(&[config.clone(), users.clone()].into_iter().flatten().collect::<Vec<_>>())?;
    let text = read(&args.file).map_err(|finding| Failure::Mistakes(vec![*finding]))?;
    let (database, missing) = database(args, &text)?;
    let name = args.file.file_name().map_or("turnserver.conf".into(), |name| name.to_string_lossy());
    let own = configuration::own_ranges();
    let generated = new_secret()?;
    let folder = args.file.parent().unwrap_or(Path::new(""));
    let folder = std::path::absolute(folder.join("x")).context("the working directory cannot be told")?;
    let users_file = users.as_ref().and_then(|path| path.file_name()?.to_str());
    let input = Input {
        name: &name,
        text: &text,
        folder: folder.parent().unwrap_or(Path::new("/")),
        realm: args.realm.as_deref(),
        database: database.as_ref(),
        missing_database: missing.as_deref(),
        anonymous: args.allow_anonymous,
        generated: &generated,
        users_file,
        is_own: &|ip| own.iter().any(|range| range.contains(ip)),
    };
    let mut import = coturn::import(&input).map_err(|finding| Failure::Mistakes(vec![*finding]))?;
    let (text, warnings) = checked(&mut import, &out).map_err(Failure::Mistakes)?;
    match &config {
        Some(config) => {
            let users = import.users.iter().map(|(name, text)| (config.with_file_name(name), text));
            let files: Vec<_> = users.chain([(config.clone(), &text)]).collect();
            must_be_new(&files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>())?;
            files.iter().try_for_each(|(path, text)| output::write(path, text, args.force))?;
        }
        _ => io::stdout().lock().write_all(text.as_bytes()).context("standard output cannot be written")?,
    }
    summary(&name, &import, &out, &warnings);
    Ok(())
}

/// Makes a text that `hairpin check` accepts: what it refuses is commented out.
fn checked(import: &mut Import, out: &Output) -> Result<(String, Vec<Finding>), Vec<Finding>> {
    let folder = out.folder();
    let users = import.users.clone();
    let beside = |path: &Path| {
        let (_, text) = users.iter().find(|(name, _)| Path::new(name) == path)?;
        Some(FileContents::from(text.as_str()))
    };
    loop {
        let text = import.text();
        if text.len() as u64 > FILE_MAX {
            return Err(vec![too_large(&out.name(), text.len())]);
        }
        match configuration::judge_text(&out.name(), &text, &folder, &beside) {
            Ok(loaded) => return Ok((text, loaded.warnings)),
            Err(mistakes) if import.refuse(&mistakes) => {}
            // What was commented out before may be the cause.
            Err(mistakes) => return Err(import.refused().into_iter().chain(mistakes).collect()),
        }
    }
}

/// Nobody could read what would be written.
fn too_large(name: &str, bytes: usize) -> Finding {
    let what = format!("would have {} MiB, and hairpin reads {} MiB of a file", bytes >> 20, FILE_MAX >> 20);
    let fix = "write into a file with --out, so that users have files of their own, or import fewer lines";
    Finding::of_file(name, None, what, fix)
}

/// The text of the configuration of coturn.
fn read(file: &Path) -> Result<String, Box<Finding>> {
    let finding =
        |line, what, fix: &str| Box::new(Finding::of_file(file.display().to_string(), line, what, fix));
    let contents = reading::read(file).map_err(|error| {
        let (what, fix) = unreadable(&error);
        finding(None, what, fix)
    })?;
    // Comments of another time may have another encoding; values may not.
    let readable = match text::of(&contents.bytes) {
        Err(wrong) if !wrong.is_encoding => without_odd_comments(&contents.bytes),
        _ => contents.bytes,
    };
    let text = text::of(&readable);
    let text = text.map_err(|wrong| finding(Some(wrong.line), wrong.sentence(), wrong.fix))?;
    Ok(text.to_owned())
}

/// The bytes without the comments that are not UTF-8, of which only the line ends stay.
fn without_odd_comments(bytes: &[u8]) -> Vec<u8> {
    let is_odd = |line: &[u8]| {
        line.trim_ascii_start().starts_with(b"#") && (str::from_utf8(line).is_err() || line.contains(&0))
    };
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| if is_odd(line) { b"" } else { line });
    lines.collect::<Vec<_>>().join(&b'\n')
}

/// A shared secret.
fn new_secret() -> Result<String> {
    let bytes = random::bytes::<24>().context("the operating system gives no random bytes")?;
    Ok(BASE64_STANDARD.encode(bytes))
}

/// The database, and why there is none although there might be one.
fn database(args: &ImportArgs, text: &str) -> Result<(Option<Database>, Option<String>)> {
    if let Some(path) = &args.turndb {
        return Ok((Some(turndb::read(path)?), None));
    }
    match coturn::database_of(text) {
        DatabaseOf::File(named) => {
            let path = Path::new(&named);
            if !path.exists() {
                return Ok((None, Some(format!("{named} does not exist on this machine"))));
            }
            return Ok((Some(turndb::read(path)?), None));
        }
        // What an SQLite file has then is of another time.
        DatabaseOf::Other => return Ok((None, None)),
        DatabaseOf::Default => {}
    }
    // coturn opens it although nobody asked for it, so an empty one means nothing.
    match DATABASES.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => match turndb::read(path) {
            Ok(database) => Ok((Some(database), None)),
            Err(error) => Ok((None, Some(format!("{error:#}")))),
        },
        None => Ok((None, None)),
    }
}

/// Where the configuration goes without --out. Anything else that standard output leads to may be a log, which must not have secrets.
const FILE: &str = "hairpin.toml";

/// Where the configuration goes.
struct Output {
    /// `None`: standard output.
    file: Option<PathBuf>,
}

impl Output {
    fn new(args: &ImportArgs) -> Output {
        let file = match &args.out {
            Some(out) if out == Path::new("-") => None,
            Some(out) => Some(out.clone()),
            // The shell has created the file: hairpin import-coturn turnserver.conf > hairpin.toml
            None if output::stdout_is(Path::new(FILE)) => None,
            None => Some(FILE.into()),
        };
        Output { file }
    }

    fn name(&self) -> String {
        self.file.as_ref().map_or(FILE.into(), |file| file.display().to_string())
    }

    /// The files of the configuration and of its users.
    fn files(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        let users = self.file.as_ref().map(|file| {
            let stem = file.file_stem().map_or("hairpin".into(), |stem| stem.to_string_lossy());
            file.with_file_name(format!("{stem}-users"))
        });
        (self.file.clone(), users)
    }

    fn folder(&self) -> PathBuf {
        self.file.as_ref().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_owned()
    }
}

/// Says on standard error what became of what.
fn summary(name: &str, import: &Import, out: &Output, warnings: &[Finding]) {
    let said = import.said();
    let count = |weight| said.iter().filter(|said| said.weight == weight).count();
    for said in said.iter().filter(|said| said.weight == Weight::Danger) {
        // A place comes first, as in every message about a file.
        let (place, text) = said.text.split_once(": ").unwrap_or(("", &said.text));
        say(&match place.starts_with(name) {
            true => format!("{place}: danger: {text}"),
            false => format!("danger: {}", said.text),
        });
    }
    daemon::print_findings(warnings);
    say(&format!(
        "{name}: {}, {} of them translated; {}, {} and {}, each in a comment",
        counted(import.settings, "setting"),
        import.translated(),
        counted(count(Weight::Danger), "danger"),
        match count(Weight::Lost) {
            1 => "1 loss".to_owned(),
            n => format!("{n} losses"),
        },
        counted(count(Weight::Note), "note"),
    ));
    let written = match &out.file {
        Some(file) => format!("{}: written, and `hairpin check` accepts it", file.display()),
        None => {
            "`hairpin check` accepts the result; keep it private if it has secrets (chmod 600)".to_owned()
        }
    };
    say(&written);
}

fn say(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(io::stderr().lock(), "{line}");
}
