// SPDX-License-Identifier: Apache-2.0
//! The list of layers, written once. Built once per worker; a request clones nothing of it.

use std::future::Future;
use std::pin::Pin;

use http::Response;
use tower::ServiceBuilder;

use super::body::Body;
use super::client::Endpoints;
use crate::error::RequestError;
use crate::exchange::Call;
use crate::layer;

/// What a layer gives back.
pub type Answer = Result<Response<Body>, RequestError>;
/// What a layer gives back in time; local to its worker.
pub type Answering = Pin<Box<dyn Future<Output = Answer>>>;

/// A service of the stack.
pub trait HttpService:
    tower::Service<Call, Response = Response<Body>, Error = RequestError, Future = Answering>
    + Clone
    + 'static
{
}

impl<S> HttpService for S where
    S: tower::Service<Call, Response = Response<Body>, Error = RequestError, Future = Answering>
        + Clone
        + 'static
{
}

/// The stack over these endpoints.
pub fn build(endpoints: Endpoints) -> impl HttpService {
    ServiceBuilder::new()
        .layer(layer::headers::layer()) // what a hop adds, before anybody reads
        .layer(layer::trace::layer()) // the hop's own span
        .layer(layer::access_log::layer())
        .layer(layer::metrics::layer())
        .layer(layer::route::layer()) // one snapshot, one rule, one cluster
        .layer(layer::deadline::layer()) // over all tries
        .layer(layer::retry::layer()) // below here runs once per try
        .layer(layer::trace::attempts())
        .service(endpoints)
}
