//! Signals to the real program: which ones end it, and what the log says about the others.

use std::fs::{self, File};

use crate::place::{Place, text};

/// Signals that end the relay or cannot be handled: HUP is for reloads, USR1 (10) drains, 2, 3 and 15 stop it, ABRT is for systemd's watchdog, KILL and
/// STOP cannot be handled (signal(7)), and 32 and 33 belong to the C library.
const OTHERS: [u32; 10] = [1, 2, 3, 6, 9, 10, 15, 19, 32, 33];

/// The default action of most signals is to end the process, and with it every call.
#[test]
fn other_signals_are_ignored_with_a_line() {
    let place = Place::new("");
    let log = place.folder.path().join("log");
    let running = place.start(File::create(&log).unwrap().into());
    for signal in (1..=64).filter(|signal| !OTHERS.contains(signal)) {
        running.signal(&signal.to_string());
        assert!(place.get("/healthz").starts_with("HTTP/1.1 200"), "after signal {signal}");
        if signal == 18 {
            // A SIGCONT that nobody has read yet is discarded when SIGTSTP comes (signal(7)).
            place.wait_for_log(&log, "SIGCONT: ignored");
        }
    }
    assert_eq!(running.stop("TERM"), Some(0));
    let said = fs::read_to_string(log).unwrap();
    for signal in [
        "SIGUSR2",
        "SIGALRM",
        "SIGPWR",
        "SIGTSTP",
        "SIGCONT",
        "SIGTRAP",
        "SIGSYS",
        "SIGILL",
        "SIGBUS",
        "SIGFPE",
        "SIGSEGV",
        "SIGRTMIN+0",
        "SIGRTMIN+30",
    ] {
        assert!(said.contains(&format!("{signal}: ignored")), "{signal} is not in\n{said}");
    }
    // coturn reloads its certificate at SIGUSR2, and renewal hooks send it.
    let line = said.lines().find(|line| line.contains("SIGUSR2")).unwrap();
    assert!(line.contains("SIGHUP reloads the configuration and the certificate"), "{line}");
}

/// A line for each of a thousand signals would be a flood.
#[test]
fn a_signal_sent_often_is_logged_once_per_second() {
    let place = Place::new("");
    let log = place.folder.path().join("log");
    let running = place.start(File::create(&log).unwrap().into());
    (0..50).for_each(|_| running.signal("USR2"));
    assert_eq!(running.stop("TERM"), Some(0));
    let lines = fs::read_to_string(log).unwrap().matches("SIGUSR2: ignored").count();
    assert!((1..=5).contains(&lines), "{lines} lines");
}

#[test]
fn quit_stops_it_and_abort_keeps_its_default() {
    let place = Place::new("");
    assert!(text(&place.start(std::process::Stdio::null()).stop_with_output("QUIT")).is_empty());
    assert_eq!(place.start(std::process::Stdio::null()).stop("ABRT"), None, "killed by the signal");
}

/// Without an allocation there is nothing to wait for: SIGUSR1 drains the relay, which then ends with success.
#[test]
fn an_idle_relay_that_drains_ends_with_success() {
    let place = Place::new("");
    let log = place.folder.path().join("log");
    let running = place.start(File::create(&log).unwrap().into());
    assert_eq!(running.stop("USR1"), Some(0));
    let said = fs::read_to_string(log).unwrap();
    for words in ["SIGUSR1: the relay drains from now on", "no [[sibling]]", "hairpin has stopped"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}

/// SIGHUP counts mistakes in words.
#[test]
fn one_mistake_is_not_a_plural() {
    let place = Place::new("");
    let log = place.folder.path().join("log");
    let running = place.start(File::create(&log).unwrap().into());
    let good = fs::read_to_string(place.file()).unwrap();
    for (wrong, words) in [
        ("[limits]\npermission_lifetime = 0\n", "has 1 mistake"),
        ("[limits]\npermission_lifetime = 0\nchannel_lifetime = 0\n", "has 2 mistakes"),
    ] {
        fs::write(place.file(), format!("{good}{wrong}")).unwrap();
        running.signal("HUP");
        place.wait_for_log(&log, words);
    }
    assert!(!fs::read_to_string(&log).unwrap().contains("1 mistakes"));
    assert_eq!(running.stop("TERM"), Some(0));
}
