// SPDX-License-Identifier: Apache-2.0
//! The table for meshes, virtual services, virtual routers and virtual gateways.

use super::node::{LoggingFormat, PortMapping, PortSet, SubjectAlternativeNames};
use super::scalars::{
    Arn, Boolean, EgressFilterType, FilePath, IpPreference, MaxConnections, MaxPendingRequests,
    MaxRequests, PortNumber, ResourceName, String, VirtualGatewayHealthCheckIntervalMillis,
    VirtualGatewayHealthCheckThreshold, VirtualGatewayHealthCheckTimeoutMillis,
    VirtualGatewayListenerTlsMode, VirtualGatewayPortProtocol, VirtualGatewaySdsSecretName,
};

shape!(structure MeshSpec {
    may egressFilter: EgressFilter,
    may serviceDiscovery: MeshServiceDiscovery,
});

shape!(structure EgressFilter {
    needs type: EgressFilterType,
});

shape!(structure MeshServiceDiscovery {
    may ipPreference: IpPreference,
});

shape!(structure VirtualGatewaySpec {
    may backendDefaults: VirtualGatewayBackendDefaults,
    needs listeners: VirtualGatewayListeners,
    may logging: VirtualGatewayLogging,
});

shape!(structure VirtualGatewayBackendDefaults {
    may clientPolicy: VirtualGatewayClientPolicy,
});

shape!(structure VirtualGatewayClientPolicy {
    may tls: VirtualGatewayClientPolicyTls,
});

shape!(structure VirtualGatewayClientPolicyTls {
    may certificate: VirtualGatewayClientTlsCertificate,
    may enforce: Boolean,
    may ports: PortSet,
    needs validation: VirtualGatewayTlsValidationContext,
});

shape!(union VirtualGatewayClientTlsCertificate {
    file: VirtualGatewayListenerTlsFileCertificate,
    sds: VirtualGatewayListenerTlsSdsCertificate,
});

shape!(structure VirtualGatewayListenerTlsFileCertificate {
    needs certificateChain: FilePath,
    needs privateKey: FilePath,
});

shape!(structure VirtualGatewayListenerTlsSdsCertificate {
    needs secretName: VirtualGatewaySdsSecretName,
});

shape!(structure VirtualGatewayTlsValidationContext {
    may subjectAlternativeNames: SubjectAlternativeNames,
    needs trust: VirtualGatewayTlsValidationContextTrust,
});

shape!(union VirtualGatewayTlsValidationContextTrust {
    acm: VirtualGatewayTlsValidationContextAcmTrust,
    file: VirtualGatewayTlsValidationContextFileTrust,
    sds: VirtualGatewayTlsValidationContextSdsTrust,
});

shape!(structure VirtualGatewayTlsValidationContextAcmTrust {
    needs certificateAuthorityArns: VirtualGatewayCertificateAuthorityArns,
});

shape!(list VirtualGatewayCertificateAuthorityArns of Arn, min 1, max 3);

shape!(structure VirtualGatewayTlsValidationContextFileTrust {
    needs certificateChain: FilePath,
});

shape!(structure VirtualGatewayTlsValidationContextSdsTrust {
    needs secretName: VirtualGatewaySdsSecretName,
});

shape!(list VirtualGatewayListeners of VirtualGatewayListener);

shape!(structure VirtualGatewayListener {
    may connectionPool: VirtualGatewayConnectionPool,
    may healthCheck: VirtualGatewayHealthCheckPolicy,
    needs portMapping: VirtualGatewayPortMapping,
    may tls: VirtualGatewayListenerTls,
});

shape!(union VirtualGatewayConnectionPool {
    grpc: VirtualGatewayGrpcConnectionPool,
    http: VirtualGatewayHttpConnectionPool,
    http2: VirtualGatewayHttp2ConnectionPool,
});

shape!(structure VirtualGatewayGrpcConnectionPool {
    needs maxRequests: MaxRequests,
});

shape!(structure VirtualGatewayHttpConnectionPool {
    needs maxConnections: MaxConnections,
    may maxPendingRequests: MaxPendingRequests,
});

shape!(structure VirtualGatewayHttp2ConnectionPool {
    needs maxRequests: MaxRequests,
});

shape!(structure VirtualGatewayHealthCheckPolicy {
    needs healthyThreshold: VirtualGatewayHealthCheckThreshold,
    needs intervalMillis: VirtualGatewayHealthCheckIntervalMillis,
    may path: String,
    may port: PortNumber,
    needs protocol: VirtualGatewayPortProtocol,
    needs timeoutMillis: VirtualGatewayHealthCheckTimeoutMillis,
    needs unhealthyThreshold: VirtualGatewayHealthCheckThreshold,
});

shape!(structure VirtualGatewayPortMapping {
    needs port: PortNumber,
    needs protocol: VirtualGatewayPortProtocol,
});

shape!(structure VirtualGatewayListenerTls {
    needs certificate: VirtualGatewayListenerTlsCertificate,
    needs mode: VirtualGatewayListenerTlsMode,
    may validation: VirtualGatewayListenerTlsValidationContext,
});

shape!(union VirtualGatewayListenerTlsCertificate {
    acm: VirtualGatewayListenerTlsAcmCertificate,
    file: VirtualGatewayListenerTlsFileCertificate,
    sds: VirtualGatewayListenerTlsSdsCertificate,
});

shape!(structure VirtualGatewayListenerTlsAcmCertificate {
    needs certificateArn: Arn,
});

shape!(structure VirtualGatewayListenerTlsValidationContext {
    may subjectAlternativeNames: SubjectAlternativeNames,
    needs trust: VirtualGatewayListenerTlsValidationContextTrust,
});

shape!(union VirtualGatewayListenerTlsValidationContextTrust {
    file: VirtualGatewayTlsValidationContextFileTrust,
    sds: VirtualGatewayTlsValidationContextSdsTrust,
});

shape!(structure VirtualGatewayLogging {
    may accessLog: VirtualGatewayAccessLog,
});

shape!(union VirtualGatewayAccessLog {
    file: VirtualGatewayFileAccessLog,
});

shape!(structure VirtualGatewayFileAccessLog {
    may format: LoggingFormat,
    needs path: FilePath,
});

shape!(structure VirtualRouterSpec {
    may listeners: VirtualRouterListeners,
});

shape!(list VirtualRouterListeners of VirtualRouterListener);

shape!(structure VirtualRouterListener {
    needs portMapping: PortMapping,
});

shape!(structure VirtualServiceSpec {
    may provider: VirtualServiceProvider,
});

shape!(union VirtualServiceProvider {
    virtualNode: VirtualNodeServiceProvider,
    virtualRouter: VirtualRouterServiceProvider,
});

shape!(structure VirtualNodeServiceProvider {
    needs virtualNodeName: ResourceName,
});

shape!(structure VirtualRouterServiceProvider {
    needs virtualRouterName: ResourceName,
});
