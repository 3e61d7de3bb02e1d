//! coturn's SQLite database. It is opened for reading only, because coturn may be running, and what is read of it has bounds.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use crate::config::coturn::{Database, DatabaseUser};

/// The most rows of a table.
const ROWS_MAX: usize = 250_000;

/// The most bytes of a value; coturn's columns have 512 at most.
const VALUE_MAX: usize = 1024;

/// The largest file.
const FILE_MAX: u64 = 256 * 1024 * 1024;

/// How long it may be locked, while coturn's tools change something.
const BUSY: Duration = Duration::from_secs(5);

/// The tables without a counterpart.
const OTHERS: [&str; 3] = ["admin_user", "oauth_key", "turn_origin_to_realm"];

/// Reads a database.
pub fn read(path: &Path) -> Result<Database> {
    try_read(path).with_context(|| format!("the database {} cannot be read", path.display()))
}

fn try_read(path: &Path) -> Result<Database> {
    let metadata =
        path.metadata().map_err(|error| anyhow!("{}", crate::config::files::unreadable(&error).0))?;
    if !metadata.is_file() {
        bail!("it is no file");
    }
    if metadata.len() > FILE_MAX {
        bail!("it is larger than {} MiB", FILE_MAX >> 20);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // One transaction: every table is of the same moment.
        connection.execute_batch("PRAGMA trusted_schema = OFF; BEGIN")?;
        let tables = tables(&connection)?;
        Ok((connection, tables))
    };
    let (connection, tables) = open().map_err(explained)?;
    let has = |table: &str| tables.iter().any(|name| name == table);
    if !has("turnusers_lt") && !has("turn_secret") {
        bail!("it has none of coturn's tables (turnusers_lt, turn_secret)");
    }
    let rows = |table: &str, columns: &[&str]| match has(table) {
        true => rows(&connection, table, columns),
        false => Ok(Vec::new()),
    };
    let pairs = |table: &str, column: &str| {
        let rows = rows(table, &["realm", column])?.into_iter();
        anyhow::Ok(
            rows.filter_map(|row| row.try_into().ok())
                .map(|[realm, value]: [String; 2]| (realm, value))
                .collect(),
        )
    };
    let users = rows("turnusers_lt", &["realm", "name", "hmackey"])?.into_iter();
    let users = users.filter_map(|row| row.try_into().ok());
    let options = rows("turn_realm_option", &["realm", "opt", "value"])?.into_iter();
    let options = options.filter_map(|row| row.try_into().ok());
    let counted = OTHERS.into_iter().filter(|table| has(table));
    let others = counted.map(|table| Ok((table, count(&connection, table)?))).collect::<Result<Vec<_>>>()?;
    Ok(Database {
        name: path.display().to_string(),
        users: users.map(|[realm, name, key]: [String; 3]| DatabaseUser { realm, name, key }).collect(),
        secrets: pairs("turn_secret", "value")?,
        allowed: pairs("allowed_peer_ip", "ip_range")?,
        denied: pairs("denied_peer_ip", "ip_range")?,
        options: options.map(|[realm, option, value]: [String; 3]| (realm, option, value)).collect(),
        others: others.into_iter().filter(|(_, rows)| *rows > 0).collect(),
    })
}

/// The tables. A view could be a query without an end, so it does not count.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'create virtual%' LIMIT 1000";
    let mut statement = connection.prepare(sql)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The rows of a table, as text.
fn rows(connection: &Connection, table: &str, columns: &[&str]) -> Result<Vec<Vec<String>>> {
    let read = || -> rusqlite::Result<Vec<Vec<String>>> {
        let order = (1..=columns.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let sql =
            format!("SELECT {} FROM {table} ORDER BY {order} LIMIT {}", columns.join(", "), ROWS_MAX + 1);
        let mut statement = connection.prepare(&sql)?;
        let texts = |row: &Row<'_>| (0..columns.len()).map(|n| text(row, n)).collect();
        statement.query_map([], texts)?.collect()
    };
    let rows = read().map_err(explained).with_context(|| format!("table {table}"))?;
    if rows.len() > ROWS_MAX {
        bail!("table {table} has more than {ROWS_MAX} rows");
    }
    if rows.iter().flatten().any(|value| value.len() > VALUE_MAX) {
        bail!("table {table} has a value of more than {VALUE_MAX} bytes");
    }
    Ok(rows)
}

fn count(connection: &Connection, table: &str) -> Result<usize> {
    let sql = format!("SELECT count(*) FROM {table}");
    let count: i64 = connection.query_row(&sql, [], |row| row.get(0)).map_err(explained)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn text(row: &Row<'_>, n: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(n)? {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            String::from_utf8_lossy(&bytes[..bytes.len().min(VALUE_MAX + 1)]).into_owned()
        }
    })
}

/// What SQLite says, with the fix.
fn explained(error: rusqlite::Error) -> anyhow::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => anyhow!("it is no SQLite database"),
        Some(ErrorCode::DatabaseCorrupt) => {
            anyhow!("it is damaged ({error}); `sqlite3 FILE .recover` may save what is in it")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            anyhow!("another program has locked it; try again")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => anyhow!(
            "{error}; if the file may be read, coturn has not finished a change: copy it with `sqlite3 FILE '.backup COPY'`, and name the \
             copy with --turndb"
        ),
        _ => anyhow!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SCHEMA: &str = "\
CREATE TABLE turnusers_lt (realm varchar(127) default '', name varchar(512), hmackey char(128), PRIMARY KEY (realm,name));
CREATE TABLE turn_secret (realm varchar(127) default '', value varchar(256), primary key (realm,value));
CREATE TABLE allowed_peer_ip (realm varchar(127) default '', ip_range varchar(256), primary key (realm,ip_range));
CREATE TABLE denied_peer_ip (realm varchar(127) default '', ip_range varchar(256), primary key (realm,ip_range));
CREATE TABLE turn_realm_option (realm varchar(127) default '', opt varchar(32), value varchar(128), primary key (realm,opt));
CREATE TABLE admin_user (name varchar(32), realm varchar(127), password varchar(127), primary key (name));
INSERT INTO turnusers_lt VALUES ('example.org', 'alice', '00112233445566778899aabbccddeeff');
INSERT INTO turn_secret VALUES ('example.org', 'a secret of this test');
INSERT INTO denied_peer_ip VALUES ('', '198.51.100.0-198.51.100.255');
INSERT INTO turn_realm_option VALUES ('example.org', 'max-bps', 250000);
INSERT INTO admin_user VALUES ('operator', '', 'hash');
";

    fn database(more: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        Connection::open(file.path()).unwrap().execute_batch(&format!("{SCHEMA}{more}")).unwrap();
        file
    }

    fn error(file: &Path) -> String {
        format!("{:#}", read(file).unwrap_err())
    }

    #[test]
    fn every_table_is_read() {
        let file = database("");
        let found = read(file.path()).unwrap();
        let users: Vec<_> =
            found.users.iter().map(|user| (user.realm.as_str(), user.name.as_str())).collect();
        assert_eq!(users, [("example.org", "alice")]);
        assert_eq!(found.users[0].key, "00112233445566778899aabbccddeeff");
        assert_eq!(found.secrets, [("example.org".into(), "a secret of this test".into())]);
        assert_eq!(found.denied.len(), 1);
        assert_eq!(found.options[0].2, "250000");
        assert_eq!(found.others, [("admin_user", 1)]);
        assert!(!format!("{found:?}").contains("0011223344"), "keys are not printed");
    }

    /// coturn may be running: nothing is written, and a change that it has not finished does not show.
    #[test]
    fn a_running_coturn_is_not_disturbed() {
        for mode in ["DELETE", "WAL"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("turndb");
            let coturn = Connection::open(&path).unwrap();
            coturn.execute_batch(&format!("PRAGMA journal_mode = {mode}; {SCHEMA}")).unwrap();
            coturn.execute_batch("BEGIN; INSERT INTO turn_secret VALUES ('', 'not committed');").unwrap();
            let before = fs::read(&path).unwrap();
            assert_eq!(read(&path).unwrap().secrets.len(), 1, "{mode}");
            assert!(fs::read(&path).unwrap() == before, "{mode}");
            coturn.execute_batch("COMMIT").unwrap();
            assert_eq!(read(&path).unwrap().secrets.len(), 2, "{mode}");
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_told() {
        let file = database("");
        let whole = fs::read(file.path()).unwrap();
        let mut damaged = whole.clone();
        // Every page but the first, which has the schema.
        damaged[4096..].fill(0x5A);
        let write = |bytes: &[u8]| fs::write(file.path(), bytes).unwrap();
        write(&damaged);
        assert!(error(file.path()).contains("damaged"), "{}", error(file.path()));
        write(&whole[..5000]);
        assert!(error(file.path()).contains("damaged"), "{}", error(file.path()));
        write(b"realm=example.org\n this is no database, although it is a file of more than a hundred bytes, which is needed");
        assert!(error(file.path()).contains("it is no SQLite database"), "{}", error(file.path()));
        write(b"");
        assert!(error(file.path()).contains("none of coturn's tables"), "{}", error(file.path()));
        assert!(error(Path::new("/")).contains("it is no file"));
        assert!(error(Path::new("/nowhere/turndb")).contains("No such file"));
    }

    /// A view could be a query that never ends.
    #[test]
    fn what_is_read_has_bounds() {
        let endless = "DROP TABLE turn_secret; CREATE VIEW turn_secret AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       SELECT 'example.org' AS realm, i AS value FROM n;";
        assert!(read(database(endless).path()).unwrap().secrets.is_empty());
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 250001) INSERT INTO turn_secret SELECT 'x', i FROM n;";
        assert!(error(database(many).path()).contains("table turn_secret has more than 250000 rows"));
        let long = "INSERT INTO turn_secret VALUES ('x', zeroblob(2000));";
        assert!(error(database(long).path()).contains("a value of more than 1024 bytes"));
    }
}
