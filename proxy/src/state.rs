// SPDX-License-Identifier: Apache-2.0
//! The last good resources on disk, for a start without control plane, and this proxy's identity beside them. Written
//! by atomic rename, readable by their owner only, since secrets are among them; a file that is torn, foreign or of
//! another node is refused as a whole. Called by `xds::client` (load), `keep` (save) and `identity`.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::Resource as ProtoResource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::Versioned;
use pillion_xds::resource::decode_delta;
use pillion_xds::resource::version_of;
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::xds::client::Control;

const RESOURCES: &str = "resources.pb";
const IDENTITY: &str = "identity.pem";
/// First word of the file; another number means another form.
const FORMAT: &str = "pillion-proxy-state-1";
/// Changes are gathered this long before they are written.
const SETTLE: Duration = Duration::from_millis(500);

/// Where state stands.
#[derive(Clone, Debug)]
pub struct StateDir {
    dir: PathBuf,
    node_id: String,
}

/// State that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No such file, or no right to it.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its content is not ours.
    #[error("{} {why}; delete it, and the proxy writes a new one", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// State that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write {}; --state-dir must be a directory this process can write", .path.display())]
pub struct SaveError {
    path: PathBuf,
    source: io::Error,
}

/// Accepted resources by type, in the order in which they can be applied.
pub type Saved = Vec<(ResourceType, Vec<Versioned>)>;

impl StateDir {
    /// In this directory, of this node.
    pub fn new(dir: PathBuf, node_id: &str) -> StateDir {
        StateDir {
            dir,
            node_id: node_id.to_owned(),
        }
    }

    /// Makes the directory, and sees that it can be written.
    pub fn prepare(&self) -> Result<(), SaveError> {
        let probe = self.dir.join(".probe");
        let made = fs::create_dir_all(&self.dir)
            .and_then(|()| fs::write(&probe, b""))
            .and_then(|()| fs::remove_file(&probe));
        made.map_err(|source| SaveError {
            path: self.dir.clone(),
            source,
        })
    }

    /// Writes resources over the ones before.
    pub fn save(&self, saved: &Saved) -> Result<(), SaveError> {
        let mut body = Vec::new();
        for (kind, resources) in saved {
            let resource = |one: &Versioned| ProtoResource {
                name: one.resource.name().to_owned(),
                version: one.version.clone(),
                resource: Some(one.resource.encode_any()),
                ..ProtoResource::default()
            };
            let response = DeltaDiscoveryResponse {
                type_url: kind.url().to_owned(),
                resources: resources.iter().map(resource).collect(),
                ..DeltaDiscoveryResponse::default()
            };
            body.extend(response.encode_length_delimited_to_vec());
        }
        let mut bytes = format!("{FORMAT} {} {}\n", version_of(&body), self.node_id).into_bytes();
        bytes.extend(body);
        self.write(RESOURCES, &bytes)
    }

    /// Reads resources back. One that no longer decodes is left out, with a warning.
    pub fn load(&self) -> Result<Saved, LoadError> {
        let path = self.dir.join(RESOURCES);
        let bytes = fs::read(&path).map_err(|source| LoadError::Read {
            path: path.clone(),
            source,
        })?;
        let foreign = |why: &str| LoadError::Foreign {
            path: path.clone(),
            why: why.to_owned(),
        };
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| foreign("has no header"))?;
        let header = String::from_utf8_lossy(&bytes[..end]);
        let mut body = &bytes[end + 1..];
        let mut words = header.splitn(3, ' ');
        if words.next() != Some(FORMAT) {
            return Err(foreign("is of another version"));
        }
        if words.next() != Some(version_of(body).as_str()) {
            return Err(foreign("is damaged"));
        }
        if words.next() != Some(self.node_id.as_str()) {
            return Err(foreign("belongs to another node"));
        }
        let mut saved = Saved::new();
        while !body.is_empty() {
            let response = DeltaDiscoveryResponse::decode_length_delimited(&mut body)
                .map_err(|_| foreign("does not decode"))?;
            let kind = ResourceType::from_url(&response.type_url)
                .ok_or_else(|| foreign("has an unknown type"))?;
            let (resources, refused) = decode_delta(kind, &response.resources);
            for rejected in refused {
                tracing::warn!(
                    ?kind,
                    name = rejected.name,
                    why = rejected.why,
                    "resource on disk left out"
                );
            }
            saved.push((kind, resources));
        }
        Ok(saved)
    }

    /// Writes key and certificate of this proxy.
    pub fn save_identity(&self, pem: &str) -> Result<(), SaveError> {
        self.write(IDENTITY, pem.as_bytes())
    }

    /// Reads them back, if there are any.
    pub fn load_identity(&self) -> Option<String> {
        fs::read_to_string(self.dir.join(IDENTITY)).ok()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SaveError> {
        let path = self.dir.join(name);
        let draft = self.dir.join(format!(".{name}.new"));
        let written = write_private(&draft, bytes).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| SaveError { path, source })
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Saves what was accepted whenever it has changed, until the token fires, and once more then.
pub async fn keep(state: StateDir, control: Control, stop: CancellationToken) {
    let mut changes = control.changed.subscribe();
    while stop
        .run_until_cancelled(changes.changed())
        .await
        .is_some_and(|open| open.is_ok())
    {
        // More of the same change is on its way.
        stop.run_until_cancelled(tokio::time::sleep(SETTLE)).await;
        changes.mark_unchanged();
        save(&state, &control).await;
    }
    if changes.has_changed().unwrap_or(false) {
        save(&state, &control).await;
    }
}

async fn save(state: &StateDir, control: &Control) {
    let saved = control.applier.lock().accepted();
    // What has never been configured must not overwrite what once was.
    if saved.iter().all(|(_, resources)| resources.is_empty()) {
        return;
    }
    let state = state.clone();
    match tokio::task::spawn_blocking(move || state.save(&saved)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "the configuration was not saved"),
        Err(error) => tracing::warn!(%error, "the configuration was not saved"),
    }
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use pillion_xds::resource::Resource;
    use pillion_xds::secret::Secret;
    use pillion_xds::secret::SecretValue;

    use super::*;

    fn saved() -> Saved {
        let bundle = Secret {
            name: "spiffe://t".into(),
            value: SecretValue::TrustBundle("roots".into()),
        };
        vec![(
            ResourceType::Secret,
            vec![Versioned {
                version: "7".into(),
                resource: Resource::Secret(bundle),
            }],
        )]
    }

    fn state(dir: &Path) -> StateDir {
        StateDir::new(dir.to_path_buf(), "mesh/m/virtualNode/n")
    }

    #[test]
    fn what_is_saved_loads_again_with_its_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        state(dir.path()).save(&saved()).expect("saved");
        assert_eq!(state(dir.path()).load().expect("loaded"), saved());
    }

    #[test]
    fn a_torn_file_is_refused_as_a_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        state(dir.path()).save(&saved()).expect("saved");
        let path = dir.path().join(RESOURCES);
        let mut bytes = fs::read(&path).expect("there");
        bytes.pop();
        fs::write(&path, bytes).expect("torn");
        let error = state(dir.path()).load().expect_err("torn").to_string();
        assert!(
            error.contains("is damaged") && error.contains("delete it"),
            "{error}"
        );
    }

    #[test]
    fn state_of_another_node_is_not_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        state(dir.path()).save(&saved()).expect("saved");
        let other = StateDir::new(dir.path().to_path_buf(), "mesh/m/virtualNode/other");
        assert!(
            other
                .load()
                .expect_err("foreign")
                .to_string()
                .contains("another node")
        );
    }

    #[test]
    fn secrets_on_disk_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        state(dir.path()).save(&saved()).expect("saved");
        let mode = fs::metadata(dir.path().join(RESOURCES))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
