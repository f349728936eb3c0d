// SPDX-License-Identifier: Apache-2.0
//! The X-Ray daemon's own settings, so that its command lines and `cfg.yaml` start a collector: addresses hold, the
//! level of logs too; the rest is about AWS and is named as having no effect. Read by `config`.

use std::path::Path;

use serde::Deserialize;

/// `cfg.yaml` of the daemon, versions 1 and 2.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DaemonFile {
    pub(crate) socket: Socket,
    pub(crate) logging: Logging,
    #[serde(rename = "TotalBufferSizeMB")]
    total_buffer_size_mb: Option<yaml_serde::Value>,
    concurrency: Option<yaml_serde::Value>,
    endpoint: Option<String>,
    region: Option<String>,
    local_mode: Option<yaml_serde::Value>,
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    #[serde(rename = "RoleARN")]
    role_arn: Option<String>,
    #[serde(rename = "NoVerifySSL")]
    no_verify_ssl: Option<yaml_serde::Value>,
    proxy_address: Option<String>,
    version: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Socket {
    #[serde(rename = "UDPAddress")]
    pub(crate) udp: Option<String>,
    #[serde(rename = "TCPAddress")]
    pub(crate) tcp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Logging {
    pub(crate) log_level: Option<String>,
    log_path: Option<String>,
    log_rotation: Option<yaml_serde::Value>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonFileError {
    #[error("read --config {path}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("--config {path} is no configuration file of the X-Ray daemon")]
    Shape {
        path: String,
        source: yaml_serde::Error,
    },
    #[error("--config {path}: Version is {version}; give 1 or 2")]
    Version { path: String, version: u32 },
}

impl DaemonFile {
    pub(crate) fn read(path: &Path) -> Result<DaemonFile, DaemonFileError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| DaemonFileError::Read {
            path: name.clone(),
            source,
        })?;
        DaemonFile::parse(&name, &text)
    }

    fn parse(path: &str, text: &str) -> Result<DaemonFile, DaemonFileError> {
        let file: DaemonFile =
            yaml_serde::from_str(text).map_err(|source| DaemonFileError::Shape {
                path: path.to_owned(),
                source,
            })?;
        match file.version {
            None | Some(1 | 2) => Ok(file),
            Some(version) => Err(DaemonFileError::Version {
                path: path.to_owned(),
                version,
            }),
        }
    }

    /// What is set and has no effect here.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let text = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.is_empty());
        let set = [
            ("TotalBufferSizeMB", self.total_buffer_size_mb.is_some()),
            ("Concurrency", self.concurrency.is_some()),
            ("Endpoint", text(&self.endpoint)),
            ("Region", text(&self.region)),
            ("LocalMode", self.local_mode.is_some()),
            ("ResourceARN", text(&self.resource_arn)),
            ("RoleARN", text(&self.role_arn)),
            ("NoVerifySSL", self.no_verify_ssl.is_some()),
            ("ProxyAddress", text(&self.proxy_address)),
            ("Logging.LogPath", text(&self.logging.log_path)),
            ("Logging.LogRotation", self.logging.log_rotation.is_some()),
        ];
        set.into_iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| name)
            .collect()
    }
}

/// The daemon's levels as ours.
pub(crate) fn level(name: &str) -> Option<&'static str> {
    match name {
        "dev" => Some("trace"),
        "debug" => Some("debug"),
        "info" | "" => Some("info"),
        "warn" => Some("warn"),
        "error" | "prod" => Some("error"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = r#"
TotalBufferSizeMB: 0
Concurrency: 8
Region: ""
Endpoint: ""
Socket:
  UDPAddress: "127.0.0.1:2001"
  TCPAddress: "127.0.0.1:2002"
Logging:
  LogRotation: true
  LogLevel: "prod"
  LogPath: ""
LocalMode: false
ResourceARN: ""
RoleARN: ""
NoVerifySSL: false
ProxyAddress: ""
Version: 2
"#;

    #[test]
    fn the_daemons_file_gives_addresses_and_names_what_has_no_effect() {
        let file = DaemonFile::parse("cfg.yaml", DEFAULT).expect("the daemon's own");
        assert_eq!(file.socket.udp.as_deref(), Some("127.0.0.1:2001"));
        assert_eq!(file.socket.tcp.as_deref(), Some("127.0.0.1:2002"));
        assert_eq!(
            file.logging.log_level.as_deref().and_then(level),
            Some("error")
        );
        assert!(file.without_effect().contains(&"Concurrency"));
        assert!(!file.without_effect().contains(&"Region"));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(DaemonFile::parse("x", "Version: 3").is_err());
        assert!(DaemonFile::parse("x", "Socket: [1]").is_err());
        assert!(DaemonFile::parse("x", "{").is_err());
    }
}
