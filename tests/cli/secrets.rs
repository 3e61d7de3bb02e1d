//! No error, log line or other output contains a part of a secret, whatever has happened to the file or the setting that should
//! hold it. Each case goes through the real `check`, `serve` and `credentials`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use rcgen::{CertificateParams, Issuer, KeyPair};

use crate::place::{Place, command, hairpin, text};

/// Long enough for a shared secret, and like nothing that a message would contain.
const TOKEN: &str = "Zq7bWx9KfTmR2vLhYs4NdGc8";

/// What must not be shown: no part of eight bytes.
const PART: usize = 8;

/// The output of a command, which must not contain a part of `secret`.
fn said(output: &Output, secret: &str) -> String {
    let said = [text(&output.stdout), text(&output.stderr)].concat();
    let parts: HashSet<&[u8]> = secret.as_bytes().windows(PART).collect();
    let leaked = said.as_bytes().windows(PART).any(|part| parts.contains(part));
    assert!(!leaked, "a part of the secret is shown: {said}");
    // Panics would quote values, too.
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Runs `check` and `serve` with a configuration, and returns what `check` says. A relay that starts is stopped.
fn said_about(config: &Path, secret: &str) -> (Option<i32>, String) {
    let config = config.to_str().unwrap();
    let mut serve = Command::new("timeout");
    serve
        .args(["2", env!("CARGO_BIN_EXE_hairpin"), "serve", "--config", config])
        .env_remove("HAIRPIN_AUTH_SECRET");
    said(&serve.stdin(Stdio::null()).output().unwrap(), secret);
    said(&hairpin(&["credentials", "--user", "alice", "--config", config]), secret);
    let output = hairpin(&["check", config]);
    (output.status.code(), said(&output, secret))
}

/// A configuration without credentials of its own, in its own folder.
fn place(more: &str) -> Place {
    let place = Place::new("");
    let text = fs::read_to_string(place.file()).unwrap();
    let (rest, _) = text.split_once("[auth]").unwrap();
    fs::write(place.file(), format!("{rest}{more}")).unwrap();
    place
}

#[test]
fn values_in_the_wrong_place_are_not_shown() {
    for config in [
        "[auth]\nsecrets = { TOKEN = 1 }",
        "[auth]\nsecrets = [[\"TOKEN\"]]",
        "[auth]\nsecrets = [\"TOKEN\\u0000\"]",
        "[auth]\nsecrets = [\"TOKEN\", 5]",
        "[auth.secrets]\nTOKEN = 1",
        "[[auth.secrets]]\nTOKEN = 1",
        "auth = \"TOKEN\"",
        "auth = [\"TOKEN\"]",
        "[[auth]]\nsecrets = \"TOKEN\"",
        "[auth]\nsecret_files = \"TOKEN\"",
        "[auth]\nsecret_files = [\"TOKEN\", \"/TOKEN/TOKEN\"]",
        "[auth]\nsecret_files = { a = \"TOKEN\" }",
        "[auth]\nlivekit_keys_file = \"TOKEN\"",
        "[auth]\nlivekit_keys_file = \"TOKEN: TOKEN\"",
        "[auth]\nlivekit_keys_file = { TOKEN = \"TOKEN\" }",
        "[auth]\nrealm = [\"TOKEN\"]\nsecrets = \"a good shared secret\"",
        "[auth]\nuser_before_expiry = \"TOKEN\"",
        "[auth]\nnonce_lifetime = \"TOKEN\"",
        "[auth]\nmax_lifetime = [\"TOKEN\"]",
        "[auth]\nsecert = \"TOKEN\"",
        "[auth]\nTOKEN = \"a\"",
        "[auth]\n\"TOKEN\" = \"TOKEN\"",
        "[auth.TOKEN]\na = 1",
        "[auth]\nuser = \"TOKEN\"",
        "[auth]\nuser = [\"TOKEN\"]",
        "[auth.user]\nalice = \"TOKEN\"",
        "[[auth.user]]\nname = [\"TOKEN\"]",
        "[[auth.user]]\nname = \"alice\"\npasword = \"TOKEN\"",
        "[[auth.user]]\nname = \"alice\"\nTOKEN = \"TOKEN\"",
        "[[auth.user]]\nname = \"alice\"\npassword = [\"TOKEN\"]",
        "[[auth.user]]\nname = \"alice\"\npassword = \"TOKEN\\u200b\"",
        "[[auth.user]]\nname = \"alice\"\nkey = \"TOKEN\"",
        "[[auth.user]]\nname = \"alice\"\npassword_file = \"TOKEN\"",
        "[[auth.user]]\nname = \"alice\"\npassword_file = [\"TOKEN\"]",
        "[tls]\nkey = \"TOKEN\"\ncert = \"TOKEN\"",
        "[tls]\nkey = \"\"\"-----BEGIN PRIVATE KEY-----\nTOKEN\n-----END PRIVATE KEY-----\"\"\"",
        // Not TOML: the parser's own message quotes the line.
        "[auth]\nsecrets = [\"TOKEN\n",
        "[auth]\nsecrets = TOKEN\n",
        "[auth]\nsecrets = \"TOKEN\" \"TOKEN\"\n",
        "[auth]\nsecrets \"TOKEN\"\n",
        "[auth]\nsecrets = \"TOKEN\\q\"\n",
        "[auth]\nsecrets = 'TOKEN\n",
        "[auth]\nsecrets = \"TOKEN\"\nsecrets = \"TOKEN\"\n",
        "static-auth-secret=TOKEN\n",
        "TOKEN\n",
        "TOKEN=\n",
    ] {
        let place = place(&config.replace("TOKEN", TOKEN));
        let (status, said) = said_about(&place.file(), TOKEN);
        assert_eq!(status, Some(2), "{config} gave {said}");
        assert!(said.contains("hairpin.toml:"), "{config} gave {said}");
    }
}

/// What is in a file that holds secrets, passwords or keys is either understood or an error with file, line and reason.
#[test]
fn secret_files_are_named_and_not_quoted() {
    let place = place(
        "[auth]\nsecret_files = \"the-secrets\"\n[[auth.user]]\nname = \"alice\"\npassword_file = \"the-password\"\n",
    );
    let file = |name: &str| place.folder.path().join(name);
    let utf16 = |text: String| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    for (content, reason) in [
        (format!("# Ansible managed\r\n{TOKEN}\r\n\r\n").into_bytes(), None),
        (format!("\u{FEFF}{TOKEN}").into_bytes(), None),
        (format!("\n{TOKEN}\u{200B}\n").into_bytes(), Some(":2: ")),
        (format!("\n{TOKEN}\u{A0}\n").into_bytes(), Some(":2: ")),
        (format!("\n\n{TOKEN}\x07\n").into_bytes(), Some(":3: ")),
        (format!("{TOKEN}\n\0{TOKEN}\n").into_bytes(), Some(":2: contains a NUL byte")),
        (utf16(format!("\u{FEFF}{TOKEN}\r\n")), Some(":1: the file is text in UTF-16")),
        ([TOKEN.as_bytes(), b"\xFC"].concat(), Some(":1: is not UTF-8")),
        (b"# nothing but a comment of 16 letters\n".to_vec(), Some("only comments")),
        (b"\n".to_vec(), Some("is empty")),
    ] {
        for (name, other) in [("the-secrets", "the-password"), ("the-password", "the-secrets")] {
            fs::write(file(other), "another good secret\n").unwrap();
            fs::write(file(name), &content).unwrap();
            let (status, said) = said_about(&place.file(), TOKEN);
            match reason {
                None => assert_eq!(status, Some(0), "{said}"),
                Some(reason) => {
                    assert_eq!(status, Some(2), "{said}");
                    assert!(said.contains(name) && said.contains(reason), "{reason} is not in {said}");
                }
            }
        }
    }
    // A file of another kind, in place of each.
    let key = KeyPair::generate().unwrap().serialize_pem();
    let body = key.lines().nth(1).unwrap().to_owned();
    for name in ["the-secrets", "the-password"] {
        fs::write(file("the-secrets"), "another good secret\n").unwrap();
        fs::write(file("the-password"), "another good secret\n").unwrap();
        fs::write(file(name), &key).unwrap();
        assert_eq!(said_about(&place.file(), &body).0, Some(2));
        fs::remove_file(file(name)).unwrap();
        fs::create_dir(file(name)).unwrap();
        let (status, said) = said_about(&place.file(), TOKEN);
        assert!(
            status == Some(2) && said.contains("is a directory") && !said.contains("correct the path"),
            "{said}"
        );
        fs::remove_dir(file(name)).unwrap();
    }
}

/// A file with LiveKit's API keys is read as LiveKit reads it, or there is an error with file, line and fix. It is all the
/// credentials that a relay needs.
#[test]
fn files_with_livekits_keys_are_named_and_not_quoted() {
    let place = place("[auth]\nlivekit_keys_file = \"the-keys\"\n");
    let file = place.folder.path().join("the-keys");
    for (content, status, reason) in [
        (
            format!("# of the SFU\r\nAPIkey: \"{TOKEN}{TOKEN}\" # new\r\nAPIold: '{TOKEN}-{TOKEN}'\r\n"),
            0,
            "ok",
        ),
        (
            format!("APIkey: {TOKEN}\n"),
            0,
            ":1: has a secret of 24 characters, which may be guessed; LiveKit asks for at least 32",
        ),
        (
            format!("APIkey:{TOKEN}\n"),
            2,
            ":1: is not an API key with its secret; write lines like API_KEY: SECRET",
        ),
        (format!("a: {TOKEN}\n{TOKEN}\n"), 2, ":2: is not valid YAML"),
        (
            format!("{TOKEN}: x\n{TOKEN}: {TOKEN}\n"),
            2,
            ":2: has an API key that the file has already; remove one",
        ),
        (format!("a: [{TOKEN}]\n"), 2, ":1: has a list or a map in the place of a secret"),
        (
            format!("keys:\n  {TOKEN}: {TOKEN}\n"),
            2,
            ":2: is of a configuration of LiveKit, and not of its key_file",
        ),
        (format!("a: !{TOKEN}\n"), 2, ":1: has a tag"),
        (format!("a: @{TOKEN}\n"), 2, ":1: is not valid YAML"),
        (format!("a: *{TOKEN}\n"), 2, ":1: is not valid YAML"),
        (format!("a: \"{TOKEN}\n"), 2, "is not valid YAML"),
        (format!("a|{TOKEN}: {TOKEN}\n"), 2, ":1: has an API key with a |"),
        (format!("a: {TOKEN}\u{200B}\n"), 2, ":1: has a secret with an invisible character"),
        ("\n".to_owned(), 2, "the file is empty"),
    ] {
        fs::write(&file, &content).unwrap();
        let (found, said) = said_about(&place.file(), TOKEN);
        assert!(found == Some(status) && said.contains(reason), "{content}: {said}");
        assert!(status == 0 || said.contains("the-keys"), "{said}");
        // The file is public, as tests write it.
        assert_eq!(said.contains("every user of this machine may read the file"), status == 0, "{said}");
    }
}

/// A key whose PEM has lost its line ends was quoted by the parser's error.
#[test]
fn damaged_keys_are_named_and_not_quoted() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["relay.example.org".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let good = key.serialize_pem();
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let place = place(
        "[auth]\nsecrets = \"another good secret\"\n[tls]\ncert = \"the-cert.pem\"\nkey = \"the-key.pem\"\n",
    );
    let write = |name: &str, bytes: &[u8]| fs::write(place.folder.path().join(name), bytes).unwrap();
    for (bytes, reason) in [
        (good.replace('\n', "").into_bytes(), "line 1, has lost its line ends"),
        (good.replace('\n', " ").into_bytes(), "line 1, has lost its line ends"),
        (good.replace('\n', "\\n").into_bytes(), "line 1, has lost its line ends"),
        (good[..good.len() / 2].into(), "line 1, is cut off"),
        (good.replacen(&body[40..41], "?", 1).into_bytes(), "is damaged"),
        (good.replace("PRIVATE KEY", &body).into_bytes(), "no private key"),
        (good.replace("PRIVATE KEY", "RSA PRIVATE KEY").into_bytes(), "contains something else"),
        (good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY").into_bytes(), "openssl pkey -in the-key.pem"),
        (good.replace("-----", "").into_bytes(), "lost its BEGIN and END lines"),
        (body.clone().into_bytes(), "lost its BEGIN and END lines"),
        (key.serialize_der(), "openssl pkey -inform DER -in the-key.pem"),
        (good.encode_utf16().flat_map(u16::to_le_bytes).collect(), "UTF-16"),
        (b"\x30\x82\x09\x00\x02\x01\x03\x30\x82\x08\xF0\x06\x09".to_vec(), "openssl pkcs12 -in the-key.pem"),
        (b"\x7FELF\x02\x01\x01\0\0".to_vec(), "is not PEM"),
        (Vec::new(), "is empty"),
    ] {
        write("the-cert.pem", certificate.as_bytes());
        write("the-key.pem", &bytes);
        let (status, said) = said_about(&place.file(), &body);
        assert_eq!(status, Some(2), "{reason}: {said}");
        assert!(
            said.contains("tls.key = \"the-key.pem\": ") && said.contains(reason),
            "{reason} is not in {said}"
        );
        // `openssl -in FILE -out FILE` would leave an empty file.
        assert!(!said.contains(" -out ") || said.contains(" -out the-key.pem.new"), "{said}");
        // The same in the place of the certificate.
        write("the-cert.pem", &bytes);
        write("the-key.pem", good.as_bytes());
        let (status, said) = said_about(&place.file(), &body);
        assert!(status == Some(2) && said.contains("tls.cert = \"the-cert.pem\": "), "{reason}: {said}");
    }
    for bytes in [format!("\u{FEFF}{good}"), good.replace('\n', "\r\n"), format!("{certificate}{good}")] {
        write("the-cert.pem", certificate.as_bytes());
        write("the-key.pem", bytes.as_bytes());
        let (status, said) = said_about(&place.file(), &body);
        assert_eq!(status, Some(0), "{said}");
    }
}

#[test]
fn the_environment_is_not_quoted() {
    let place = place("");
    let value = |bytes: &[u8]| OsString::from_vec([TOKEN.as_bytes(), bytes].concat());
    for (value, status, reason) in [
        (value(b"\xFF"), 2, "is not UTF-8"),
        (value("\u{200B}".as_bytes()), 2, "U+200B"),
        (value(b",short"), 2, "a secret of 5 characters"),
        (value(b"\n# a comment, as in a file"), 2, "begins with #"),
        (value(format!(",{TOKEN}").as_bytes()), 0, "listed twice"),
    ] {
        let output = command(&["check", place.config()]).env("HAIRPIN_AUTH_SECRET", value).output().unwrap();
        let said = said(&output, TOKEN);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains("environment: ") && said.contains("HAIRPIN_AUTH_SECRET = ***: "), "{said}");
        assert!(said.contains(reason), "{reason} is not in {said}");
    }
}

/// A secret that is listed twice is warned about, wherever.
#[test]
fn a_secret_listed_twice_causes_a_warning() {
    let place =
        place(&format!("[auth]\nsecrets = [\"{TOKEN}\", \"{TOKEN}\"]\nsecret_files = [\"one\", \"two\"]\n"));
    fs::write(place.folder.path().join("one"), format!("a good shared secret\n{TOKEN}\n")).unwrap();
    fs::write(place.folder.path().join("two"), "# old\na good shared secret\n").unwrap();
    let (status, said) = said_about(&place.file(), TOKEN);
    assert_eq!(status, Some(0), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("a secret is listed twice")).collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[1].contains("one:2: ") && lines[2].contains("two:2: "), "{said}");
}

/// A hundred warnings about files do not keep the next file from being read.
#[test]
fn warnings_do_not_hide_later_secret_files() {
    let names: Vec<String> = (0..120).map(|n| format!("\"s{n}\"")).collect();
    let place = place(&format!("[auth]\nsecret_files = [{}]\n", names.join(", ")));
    for n in 0..120 {
        let file = place.folder.path().join(format!("s{n}"));
        fs::write(&file, format!("a good shared secret {n}\n")).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    }
    fs::write(place.folder.path().join("s119"), "short\n").unwrap();
    let output = hairpin(&["check", place.config()]);
    assert!(text(&output.stdout).contains("s119:1: a secret of 5 characters"), "{output:?}");
    assert_eq!(output.status.code(), Some(2));
}

/// What everybody can read is no secret.
#[test]
fn files_with_secrets_that_everybody_may_read_cause_a_warning() {
    let place = place(
        "[auth]\nsecrets = \"a good shared secret\"\nsecret_files = \"more\"\n[[auth.user]]\nname = \"alice\"\npassword_file = \"password\"\n",
    );
    let files = ["hairpin.toml", "more", "password"].map(|name| place.folder.path().join(name));
    fs::write(&files[1], "another good secret\n").unwrap();
    fs::write(&files[2], "wonder\n").unwrap();
    let warnings = |modes: u32| {
        files.iter().for_each(|file| fs::set_permissions(file, PermissionsExt::from_mode(modes)).unwrap());
        let (status, said) = said_about(&place.file(), TOKEN);
        assert_eq!(status, Some(0), "{said}");
        said.matches("every user of this machine may read").count()
    };
    assert_eq!([0o600, 0o640, 0o644, 0o604].map(warnings), [0, 0, 3, 3]);
    // Without a secret of its own, the configuration may be public.
    let text = fs::read_to_string(place.file()).unwrap().replace("secrets = \"a good shared secret\"\n", "");
    fs::write(place.file(), text).unwrap();
    assert_eq!(warnings(0o644), 2);
}

/// An unreadable configuration says what it is; the path is right.
#[test]
fn an_unreadable_configuration_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hairpin.toml");
    for (bytes, reason) in [
        (&b"\xFF\xFEw\0o\0"[..], "hairpin.toml:1: the file is text in UTF-16"),
        (b"workers = 1\n# Z\xFCrich\n", "hairpin.toml:2: the line is not UTF-8"),
        (b"workers = 1\nsoft\0ware\n", "hairpin.toml:2: the line contains a NUL byte"),
        ("workers = 1\nsoftware\u{A0}= \"a\"\n".as_bytes(), "hairpin.toml:2: not valid TOML"),
    ] {
        fs::write(&file, bytes).unwrap();
        let said = said(&hairpin(&["check", file.to_str().unwrap()]), TOKEN);
        assert!(said.contains(reason) && !said.contains("correct the path"), "{said}");
    }
    let said = said(&hairpin(&["check", folder.path().to_str().unwrap()]), TOKEN);
    assert!(said.contains("it is a directory; name a file in it"), "{said}");
    // A byte order mark and CRLF are understood.
    fs::write(&file, "\u{FEFF}workers = 1\r\n[auth]\r\nsecrets = \"a good shared secret\"\r\n").unwrap();
    assert_eq!(hairpin(&["check", file.to_str().unwrap()]).status.code(), Some(0));
}

/// 200,000 users are 10 MiB, which is read without a quadratic step.
#[test]
fn large_configurations_are_read() {
    use std::fmt::Write;
    let mut more = String::from("[peers]\ndeny = [\n");
    (0..65_536).for_each(|n| writeln!(more, "\"198.18.{}.{}/32\",", n / 256, n % 256).unwrap());
    more += "]\n[auth]\nsecrets = [\n";
    (0..20_000).for_each(|n| writeln!(more, "\"a good shared secret {n}\",").unwrap());
    more += "]\n";
    (0..20_000).for_each(|n| write!(more, "[[auth.user]]\nname = \"user{n}\"\npassword = \"x\"\n").unwrap());
    let place = place(&more);
    assert!(more.len() > 2_000_000);
    let began = std::time::Instant::now();
    let output = hairpin(&["check", place.config()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

/// RFC 5246 §7.4.2: each certificate of a chain certifies the one before it. What browsers refuse is a warning, because other clients
/// and other transports work.
#[test]
fn certificates_that_clients_refuse_cause_warnings() {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
    let params = |name: &str| {
        let mut params = CertificateParams::new(["relay.example.org".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    };
    let authority = KeyPair::generate().unwrap();
    let issued = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let of_authority = params("authority");
        let issuer = Issuer::from_params(&of_authority, &authority);
        (params("relay").signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let ca = params("authority").self_signed(&authority).unwrap().pem();
    let other = params("another authority").self_signed(&authority).unwrap().pem();
    // Its validity does not begin with a time.
    let mut damaged = params("authority").self_signed(&authority).unwrap().der().to_vec();
    let time = damaged.windows(2).position(|tag| tag == [0x17, 13]).unwrap();
    damaged[time] = 0x0C;
    let damaged = base64::engine::general_purpose::STANDARD.encode(damaged);
    let damaged = format!("-----BEGIN CERTIFICATE-----\n{damaged}\n-----END CERTIFICATE-----\n");
    let (leaf, key) = issued(&PKCS_ECDSA_P256_SHA256);
    let (ed25519, ed25519_key) = issued(&PKCS_ED25519);
    let (p521, p521_key) = issued(&PKCS_ECDSA_P521_SHA512);
    let malformed =
        format!("certificate 2 of the chain (line {}) is malformed; copy the", leaf.lines().count() + 1);
    let place =
        place("[auth]\nsecrets = \"a good shared secret\"\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    let private = |name: &str| {
        let file = place.folder.path().join(name);
        fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    };
    for (chain, key, expected) in [
        (format!("{leaf}{ca}"), &key, None),
        (
            leaf.clone(),
            &key,
            Some("has only the server's own certificate, and not that of its issuer \"CN=authority\""),
        ),
        (
            format!("{leaf}{other}"),
            &key,
            Some("certificate 2 of the chain is \"CN=another authority\", which has not issued"),
        ),
        (format!("{leaf}{damaged}{ca}"), &key, Some(&malformed)),
        (format!("{ed25519}{ca}"), &ed25519_key, Some("has an Ed25519 key, which browsers refuse")),
        (format!("{p521}{ca}"), &p521_key, Some("has a key on the curve P-521, which browsers refuse")),
        (format!("{}{ca}", leaf.trim_end()), &key, Some("certificate 2 of the chain begins on line")),
    ] {
        fs::write(place.folder.path().join("cert.pem"), chain).unwrap();
        fs::write(place.folder.path().join("key.pem"), key).unwrap();
        ["key.pem", "hairpin.toml"].into_iter().for_each(private);
        let output = hairpin(&["check", place.config()]);
        let said = said(&output, TOKEN);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let warnings: Vec<_> = said.lines().filter(|line| line.contains("warning: tls.cert")).collect();
        match expected {
            None => assert!(warnings.is_empty(), "{said}"),
            Some(words) => {
                assert!(warnings.len() == 1 && warnings[0].contains(words), "{words} is not alone in {said}")
            }
        }
    }
}

/// `credentials` and `serve` read the secret in the state directory like a secret file.
#[test]
fn the_state_directory_is_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (folder.path().to_str().unwrap(), folder.path().join("secret"));
    let args = ["credentials", "--user", "alice", "--domain", "turn.example.org", "--state-dir", state];
    for (content, reason) in [
        (format!("{TOKEN}\u{200B}\n"), "secret:1: a secret contains a zero-width character"),
        (format!("# old\n{TOKEN}\nshort\n"), "secret:3: a secret of 5 characters"),
    ] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let output = hairpin(&args);
        let said = said(&output, TOKEN);
        assert!(output.status.code() == Some(1) && said.contains(reason), "{said}");
    }
}

/// PR_SET_DUMPABLE: the files of a process in /proc then belong to root, and what the relay itself reads there works.
#[test]
fn other_processes_of_its_user_cannot_read_its_memory() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new("");
    chown(place.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    chown(place.file(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = command(&["serve", "--config", place.config()]);
    let running = place.wait_for_start(command.uid(NOBODY).gid(NOBODY), Stdio::null());
    let proc = format!("/proc/{}", running.id());
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t")), "{status}");
    assert_eq!(fs::metadata(format!("{proc}/environ")).unwrap().uid(), 0);
    assert!(place.get("/metrics").contains("hairpin_host_udp_errors_total{family=\"ipv4\""));
    assert_eq!(running.stop("TERM"), Some(0));
}
