// SPDX-License-Identifier: Apache-2.0
//! The join token before every request to the control plane. Read from its file each time a stream opens or a
//! certificate is asked for, so that a new one is taken up without a restart. Not shown to anybody but the control plane.

use std::path::PathBuf;

use tonic::Request;
use tonic::Status;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// A channel that shows the token, if there is one.
pub type Joined = InterceptedService<Channel, JoinToken>;

/// Where the token is.
#[derive(Clone, Debug)]
pub struct JoinToken {
    path: Option<PathBuf>,
}

impl JoinToken {
    /// Puts it before a channel; without a file nothing is shown.
    pub fn before(channel: Channel, path: Option<PathBuf>) -> Joined {
        InterceptedService::new(channel, JoinToken { path })
    }
}

impl Interceptor for JoinToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(path) = &self.path else {
            return Ok(request);
        };
        // A file of a hundred bytes, read once per stream.
        let token = std::fs::read_to_string(path).map_err(|error| {
            Status::unauthenticated(format!(
                "read the join token from {}: {error}",
                path.display()
            ))
        })?;
        let value = format!("Bearer {}", token.trim()).parse().map_err(|_| {
            Status::unauthenticated(format!(
                "{} holds no join token: it must be one line of ASCII",
                path.display()
            ))
        })?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}
