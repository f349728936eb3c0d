// SPDX-License-Identifier: Apache-2.0
//! `--store clickhouse://user:password@host:8123/database`, read once. The password shows in no message.

use std::fmt;

const PORT: u16 = 8123;
const TLS_PORT: u16 = 8443;
const DATABASE: &str = "pillion";

/// Where a ClickHouse server speaks HTTP, and as whom to come.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
}

/// Without the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls {
            "clickhouses"
        } else {
            "clickhouse"
        };
        let Address {
            user,
            host,
            port,
            database,
            ..
        } = self;
        write!(f, "{scheme}://{user}@{host}:{port}/{database}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(
        "give clickhouse://<user>:<password>@<host>:<port>/<database>, with % escapes in user and password, or clickhouses:// for TLS"
    )]
    Shape,
    #[error("port {0:?} is no number from 1 to 65535; ClickHouse speaks HTTP on 8123, TLS on 8443")]
    Port(String),
    #[error(
        "database {0:?}: give letters, digits and _ alone, not beginning with a digit; without one it is {DATABASE:?}"
    )]
    Database(String),
    #[error(
        "port 9000 and 9440 speak ClickHouse's native protocol; give the port of its HTTP interface, usually 8123 or 8443"
    )]
    Native,
}

impl Address {
    /// `None` when `text` names no ClickHouse but a folder.
    pub(crate) fn parse(text: &str) -> Option<Result<Address, AddressError>> {
        let (tls, rest) = match text.strip_prefix("clickhouse://") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("clickhouses://")?),
        };
        Some(parse(tls, rest))
    }
}

fn parse(tls: bool, rest: &str) -> Result<Address, AddressError> {
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (who, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let port = match port {
        None => {
            if tls {
                TLS_PORT
            } else {
                PORT
            }
        }
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| AddressError::Port(port.to_owned()))?,
    };
    if port == 9000 || port == 9440 {
        return Err(AddressError::Native);
    }
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() || host.contains(['?', '#', ' ']) {
        return Err(AddressError::Shape);
    }
    let database = database.trim_end_matches('/');
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !database.chars().all(named) || database.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(AddressError::Database(database.to_owned()));
    }
    let or = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    Ok(Address {
        host: host.to_owned(),
        port,
        tls,
        user: or(&unescape(user)?, "default"),
        password: unescape(password)?,
        database: or(database, DATABASE),
    })
}

fn unescape(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or(AddressError::Shape)?;
        let byte = hex::decode(digits).map_err(|_| AddressError::Shape)?;
        bytes.extend(byte);
        rest = after;
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(char::is_control))
        .ok_or(AddressError::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_defaults_and_never_shows_its_password() {
        let whole = Address::parse("clickhouses://ann:p%40ss%2Fw@[::1]:9443/traces")
            .expect("a ClickHouse")
            .expect("valid");
        assert_eq!(
            (whole.host.as_str(), whole.port, whole.tls),
            ("::1", 9443, true)
        );
        assert_eq!(whole.password, "p@ss/w");
        assert_eq!(
            format!("{whole} {whole:?}").matches("p@ss").count(),
            0,
            "{whole}"
        );
        let short = Address::parse("clickhouse://ch")
            .expect("a ClickHouse")
            .expect("valid");
        assert_eq!(short.to_string(), "clickhouse://default@ch:8123/pillion");
        assert_eq!(Address::parse("/var/lib/pillion"), None);
    }

    #[test]
    fn what_is_wrong_with_an_address_is_named() {
        let wrong = |text| {
            Address::parse(text)
                .expect("a ClickHouse")
                .expect_err("wrong")
        };
        assert_eq!(wrong("clickhouse://"), AddressError::Shape);
        assert_eq!(wrong("clickhouse://h:x"), AddressError::Port("x".into()));
        assert_eq!(wrong("clickhouse://h:9000"), AddressError::Native);
        assert_eq!(
            wrong("clickhouse://h/a;drop"),
            AddressError::Database("a;drop".into())
        );
        assert_eq!(wrong("clickhouse://u:%zz@h"), AddressError::Shape);
    }
}
