//! `hairpin ctl`: looks at a running relay and changes it, through its admin API.
//!
//! - `arguments`: what can be written; `relay`: which relay they name
//! - `table`: results as tables, safe to print whatever clients call themselves

mod arguments;
mod relay;
mod table;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::admin::client::{Client, Failure, path};
use crate::daemon::MISTAKES;
pub use arguments::CtlArgs;
use arguments::{CtlCommand, Page, PeersCommand};

/// How often a drain that is waited for is asked about.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often in a row a connection may break meanwhile.
const ATTEMPTS: u32 = 10;

/// How long a relay has to notice SIGHUP, and to say that it reloads.
const SIGNAL_TIME: Duration = Duration::from_millis(200);

/// Carries out a command.
pub fn run(args: &CtlArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::new(error.to_string())),
    };
    match runtime.block_on(carry_out(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    let mut stderr = io::stderr().lock();
    let hint = match failure.is_missing {
        true => " If its socket is elsewhere, name it with --socket, or its configuration with --config",
        false => "",
    };
    let _ = writeln!(stderr, "hairpin: {}{hint}", table::safe(&failure.message));
    for finding in &failure.findings {
        let _ = writeln!(stderr, "{}", table::safe(finding));
    }
    match failure.is_usage {
        true => MISTAKES.into(),
        false => ExitCode::FAILURE,
    }
}

async fn carry_out(args: &CtlArgs) -> Result<(), Failure> {
    let client = Client::new(relay::target(args)?);
    let show = |value: &Value, table: fn(&Value) -> String| {
        print(&if args.json { table::json(value) } else { table(value) });
        table::silent_workers(value).for_each(|silent| note(&silent));
    };
    match &args.command {
        CtlCommand::Status => show(&client.get("/v1/status").await?, table::status),
        CtlCommand::List { filters, page } => {
            let path = format!("/v1/allocations?{}", filters.query());
            list(args, &client, &path, "allocations", page, table::allocations).await?;
        }
        CtlCommand::Show { id } => {
            show(&client.get(&path(&["allocations", id])).await?, table::allocation);
        }
        CtlCommand::End { id } => show(&client.delete(&path(&["allocations", id])).await?, table::ended),
        CtlCommand::EndUser { user } => {
            show(&client.delete(&path(&["users", user, "allocations"])).await?, table::ended);
        }
        CtlCommand::Revoke { user, until, duration, keep_later } => {
            let mut body =
                json!({ "user": user, "until": until, "for": duration.map(|time| time.as_secs()) });
            if *keep_later {
                body["end"] = "refused".into();
            }
            show(&client.post("/v1/revocations", &body).await?, table::revoked);
        }
        CtlCommand::Unrevoke { user } => {
            show(&client.delete(&path(&["revocations", user])).await?, table::unrevoked);
        }
        CtlCommand::Revocations { page } => {
            list(args, &client, "/v1/revocations?", "revocations", page, table::revocations).await?;
        }
        CtlCommand::Drain { deadline, wait } => {
            // A relay without allocations may have ended before it can be asked.
            let instance = match wait {
                true => Some(client.get("/v1/status").await?["instance"].take()),
                false => None,
            };
            let body = json!({ "deadline": deadline.map(|time| time.as_secs()) });
            let drained = client.post("/v1/drain", &body).await?;
            show(&drained, table::drain);
            if let Some(instance) = instance {
                wait_for_the_end(&client, &instance).await?;
            }
        }
        CtlCommand::Undrain => show(&client.post("/v1/undrain", &json!({})).await?, table::undrained),
        CtlCommand::Reload { or_signal } => match (client.post("/v1/reload", &json!({})).await, or_signal) {
            (Err(failure), Some(pid)) if failure.is_missing => {
                kill(Pid::from_raw(*pid), Signal::SIGHUP).map_err(|error| {
                    Failure::new(format!("process {pid} cannot be told to reload: {error}"))
                })?;
                // systemd learns from the relay itself that it reloads, and has to hear that before this command ends.
                tokio::time::sleep(SIGNAL_TIME).await;
                let place = if args.names_relay() { "" } else { " at the default path" };
                note(&format!(
                    "no control socket{place}; SIGHUP was sent, and the log of the relay says what came of it"
                ));
            }
            (answer, _) => show(&answer?, table::reloaded),
        },
        CtlCommand::Peers(PeersCommand::List) => show(&client.get("/v1/peers").await?, table::peers),
        CtlCommand::Peers(PeersCommand::Set { owner, mode, addresses }) => {
            let body = json!({ "mode": mode, "addresses": addresses });
            show(&client.put(&path(&["peers", owner]), &body).await?, table::overlay);
        }
        CtlCommand::Peers(PeersCommand::Clear { owner }) => {
            show(&client.delete(&path(&["peers", owner])).await?, table::cleared);
        }
    }
    Ok(())
}

/// Prints a page of a list, or with `--all` page after page: each is a request of its own, so that a long list holds up nobody.
async fn list(
    args: &CtlArgs,
    client: &Client,
    path: &str,
    key: &str,
    page: &Page,
    table: fn(&[Value]) -> String,
) -> Result<(), Failure> {
    let (mut items, mut cursor): (Vec<Value>, _) = (Vec::new(), page.cursor.clone());
    let mut rest;
    let mut silent = BTreeSet::new();
    loop {
        // A page may be short and not the last.
        let limit = if page.all { page.limit() } else { page.limit() - items.len() as u64 };
        let mut query = vec![("limit", limit.to_string())];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        rest = client.get(&format!("{path}&{}", arguments::query(&query))).await?;
        if let Some(Value::Array(page)) = rest.get_mut(key).map(Value::take) {
            items.extend(page);
        }
        silent.extend(rest["silent_workers"].as_array().into_iter().flatten().filter_map(Value::as_u64));
        cursor = rest["next"].as_str().map(str::to_owned);
        if cursor.is_none() || !page.all && items.len() as u64 >= page.limit() {
            break;
        }
    }
    if rest["silent_workers"].is_array() {
        rest["silent_workers"] = silent.into_iter().collect();
    }
    table::silent_workers(&rest).for_each(|silent| note(&silent));
    if args.json {
        rest[key] = items.into();
        print(&table::json(&rest));
        return Ok(());
    }
    print(&table(&items));
    if let Some(cursor) = cursor {
        note(&format!("there are more; use --all, or --cursor {}", table::safe(&cursor)));
    }
    Ok(())
}

/// Waits until the relay that drains has ended.
async fn wait_for_the_end(client: &Client, instance: &Value) -> Result<(), Failure> {
    let mut told = String::new();
    let mut attempts = 0;
    loop {
        let status = match client.get("/v1/status").await {
            Ok(status) => status,
            Err(failure) if failure.is_gone => {
                note("the relay has ended");
                return Ok(());
            }
            // A relay that ends closes its connections before its socket is gone, and a busy one may close some, too.
            Err(failure) if failure.is_stopping || failure.is_broken && attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(INTERVAL).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        attempts = 0;
        if status["instance"] != *instance {
            note("the relay has ended, and another one has started");
            return Ok(());
        }
        if status["draining"].is_null() {
            return Err(Failure::new("the relay does not drain any more: somebody has used undrain"));
        }
        let waits = table::waits_for(&status["draining"]);
        if waits != told {
            note(&waits);
            told = waits;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
