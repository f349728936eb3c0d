// SPDX-License-Identifier: Apache-2.0
//! The gRPC face of the authority: a proxy shows its node id and a CSR, and gets the certificate of that node, whatever
//! the CSR says about itself. Served beside ADS, behind the same gate: who proved to be one node is signed for as that one.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use pillion_xds::signing::CertificateService;
use pillion_xds::signing::SignRequest;
use pillion_xds::signing::SignResponse;
use tonic::Request;
use tonic::Response;
use tonic::Status;

use super::Authority;
use super::authority::IssueError;
use crate::ads::gate::Proof;
use crate::store::Live;

/// Signs for the nodes of the model.
pub struct Signer {
    /// What exists.
    pub live: Arc<Live>,
    /// Who signs.
    pub authority: Arc<Authority>,
    /// Ours, 12 digits.
    pub account: String,
    /// Ours, for ARNs.
    pub region: String,
}

impl Signer {
    fn answer(&self, request: &SignRequest, proof: &Proof) -> Result<SignResponse, Status> {
        let key = super::resolve(&request.node_id, &self.account)
            .map_err(|error| Status::invalid_argument(crate::ads::chain(&error)))?;
        let model = self.live.current();
        proof.covers(&model, &key, &self.region, self.authority.trust_domain())?;
        let subject = super::subject(model.resources(), self.authority.trust_domain(), &key)
            .ok_or_else(|| {
                Status::invalid_argument(format!("{key} does not exist; create it, then ask again"))
            })?;
        let issued =
            self.authority
                .sign(&request.csr_pem, &subject)
                .map_err(|error| match error {
                    IssueError::TooLong(_) | IssueError::Request(_) => {
                        Status::invalid_argument(crate::ads::chain(&error))
                    }
                    IssueError::Name(_) | IssueError::Sign(..) => {
                        Status::internal(crate::ads::chain(&error))
                    }
                })?;
        tracing::info!(node = %key, identity = subject.spiffe_id, "certificate signed");
        let not_after = issued
            .not_after
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Ok(SignResponse {
            chain_pem: issued.chain,
            trust_bundle_pem: self.authority.trust_bundle().to_string(),
            not_after_epoch_s: i64::try_from(not_after).unwrap_or(i64::MAX),
        })
    }
}

#[tonic::async_trait]
impl CertificateService for Signer {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let proof = request
            .extensions()
            .get::<Proof>()
            .cloned()
            .unwrap_or(Proof::None);
        let answer = self.answer(request.get_ref(), &proof);
        if let Err(status) = &answer {
            tracing::warn!(
                node_id = request.get_ref().node_id,
                reason = status.message(),
                "certificate refused"
            );
        }
        answer.map(Response::new)
    }
}
