// SPDX-License-Identifier: Apache-2.0
//! AWS Signature Version 4, both ends, and the file of keys: the control plane and the collector check requests with it,
//! the command line signs its own. Knows no service's resources and opens no socket.
//!
//! A server does this, for one request:
//!
//! ```
//! use pillion_sigv4::{Claim, Keys, Payload, Scope};
//! # fn answer(head: http::request::Parts, body: &[u8], keys: &Keys) -> Result<(), pillion_sigv4::Refusal> {
//! let scope = Scope { service: "xray", region: "us-east-1" };
//! // Before the body is read: who says they are whom, and is it recent?
//! let claim = Claim::read(&head, keys, &scope, std::time::SystemTime::now())?;
//! // After it: does the signature hold for exactly these bytes?
//! let key = claim.prove(Payload::Body(body))?;
//! assert!(key.can_read(), "a 403 of the service's own");
//! # Ok(()) }
//! ```
//!
//! [`Refusal::name`] is the exception type AWS answers with, always with status 403. The keys come from a
//! [`KeysFile`], which is reloaded when it changes: `tasks.spawn_until_stopped("credentials", file.clone().follow())`.
#![warn(missing_docs)]

mod canonical;
mod file;
mod keys;
mod sign;
mod verify;

pub use file::KeysError;
pub use file::KeysFile;
pub use keys::Key;
pub use keys::Keys;
pub use keys::SessionTokens;
pub use keys::ShareMeshes;
pub use sign::Identity;
pub use verify::Claim;
pub use verify::Payload;
pub use verify::Refusal;
pub use verify::Scope;
