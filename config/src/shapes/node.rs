// SPDX-License-Identifier: Apache-2.0
//! The table for virtual nodes, and what gateways and routes share with them.

use super::scalars::{
    Arn, AwsCloudMapInstanceAttributeKey, AwsCloudMapInstanceAttributeValue, AwsCloudMapName,
    Boolean, DnsResponseType, DurationUnit, DurationValue, FilePath, HealthCheckIntervalMillis,
    HealthCheckThreshold, HealthCheckTimeoutMillis, Hostname, IpPreference, JsonKey, JsonValue,
    ListenerTlsMode, MaxConnections, MaxPendingRequests, MaxRequests,
    OutlierDetectionMaxEjectionPercent, OutlierDetectionMaxServerErrors, PortNumber, PortProtocol,
    SdsSecretName, ServiceName, String, SubjectAlternativeName, TextFormat,
};

shape!(structure Duration {
    may unit: DurationUnit,
    may value: DurationValue,
});

shape!(structure GrpcTimeout {
    may idle: Duration,
    may perRequest: Duration,
});

shape!(structure HttpTimeout {
    may idle: Duration,
    may perRequest: Duration,
});

shape!(structure TcpTimeout {
    may idle: Duration,
});

shape!(list PortSet of PortNumber);

shape!(structure SubjectAlternativeNames {
    needs match: SubjectAlternativeNameMatchers,
});

shape!(structure SubjectAlternativeNameMatchers {
    needs exact: SubjectAlternativeNameList,
});

shape!(list SubjectAlternativeNameList of SubjectAlternativeName);

shape!(union LoggingFormat {
    json: JsonFormat,
    text: TextFormat,
});

shape!(list JsonFormat of JsonFormatRef);

shape!(structure JsonFormatRef {
    needs key: JsonKey,
    needs value: JsonValue,
});

shape!(structure VirtualNodeSpec {
    may backendDefaults: BackendDefaults,
    may backends: Backends,
    may listeners: Listeners,
    may logging: Logging,
    may serviceDiscovery: ServiceDiscovery,
});

shape!(structure BackendDefaults {
    may clientPolicy: ClientPolicy,
});

shape!(structure ClientPolicy {
    may tls: ClientPolicyTls,
});

shape!(structure ClientPolicyTls {
    may certificate: ClientTlsCertificate,
    may enforce: Boolean,
    may ports: PortSet,
    needs validation: TlsValidationContext,
});

shape!(union ClientTlsCertificate {
    file: ListenerTlsFileCertificate,
    sds: ListenerTlsSdsCertificate,
});

shape!(structure ListenerTlsFileCertificate {
    needs certificateChain: FilePath,
    needs privateKey: FilePath,
});

shape!(structure ListenerTlsSdsCertificate {
    needs secretName: SdsSecretName,
});

shape!(structure TlsValidationContext {
    may subjectAlternativeNames: SubjectAlternativeNames,
    needs trust: TlsValidationContextTrust,
});

shape!(union TlsValidationContextTrust {
    acm: TlsValidationContextAcmTrust,
    file: TlsValidationContextFileTrust,
    sds: TlsValidationContextSdsTrust,
});

shape!(structure TlsValidationContextAcmTrust {
    needs certificateAuthorityArns: CertificateAuthorityArns,
});

shape!(list CertificateAuthorityArns of Arn, min 1, max 3);

shape!(structure TlsValidationContextFileTrust {
    needs certificateChain: FilePath,
});

shape!(structure TlsValidationContextSdsTrust {
    needs secretName: SdsSecretName,
});

shape!(list Backends of Backend);

shape!(union Backend {
    virtualService: VirtualServiceBackend,
});

shape!(structure VirtualServiceBackend {
    may clientPolicy: ClientPolicy,
    needs virtualServiceName: ServiceName,
});

shape!(list Listeners of Listener);

shape!(structure Listener {
    may connectionPool: VirtualNodeConnectionPool,
    may healthCheck: HealthCheckPolicy,
    may outlierDetection: OutlierDetection,
    needs portMapping: PortMapping,
    may timeout: ListenerTimeout,
    may tls: ListenerTls,
});

shape!(union VirtualNodeConnectionPool {
    grpc: VirtualNodeGrpcConnectionPool,
    http: VirtualNodeHttpConnectionPool,
    http2: VirtualNodeHttp2ConnectionPool,
    tcp: VirtualNodeTcpConnectionPool,
});

shape!(structure VirtualNodeGrpcConnectionPool {
    needs maxRequests: MaxRequests,
});

shape!(structure VirtualNodeHttpConnectionPool {
    needs maxConnections: MaxConnections,
    may maxPendingRequests: MaxPendingRequests,
});

shape!(structure VirtualNodeHttp2ConnectionPool {
    needs maxRequests: MaxRequests,
});

shape!(structure VirtualNodeTcpConnectionPool {
    needs maxConnections: MaxConnections,
});

shape!(structure HealthCheckPolicy {
    needs healthyThreshold: HealthCheckThreshold,
    needs intervalMillis: HealthCheckIntervalMillis,
    may path: String,
    may port: PortNumber,
    needs protocol: PortProtocol,
    needs timeoutMillis: HealthCheckTimeoutMillis,
    needs unhealthyThreshold: HealthCheckThreshold,
});

shape!(structure OutlierDetection {
    needs baseEjectionDuration: Duration,
    needs interval: Duration,
    needs maxEjectionPercent: OutlierDetectionMaxEjectionPercent,
    needs maxServerErrors: OutlierDetectionMaxServerErrors,
});

shape!(structure PortMapping {
    needs port: PortNumber,
    needs protocol: PortProtocol,
});

shape!(union ListenerTimeout {
    grpc: GrpcTimeout,
    http: HttpTimeout,
    http2: HttpTimeout,
    tcp: TcpTimeout,
});

shape!(structure ListenerTls {
    needs certificate: ListenerTlsCertificate,
    needs mode: ListenerTlsMode,
    may validation: ListenerTlsValidationContext,
});

shape!(union ListenerTlsCertificate {
    acm: ListenerTlsAcmCertificate,
    file: ListenerTlsFileCertificate,
    sds: ListenerTlsSdsCertificate,
});

shape!(structure ListenerTlsAcmCertificate {
    needs certificateArn: Arn,
});

shape!(structure ListenerTlsValidationContext {
    may subjectAlternativeNames: SubjectAlternativeNames,
    needs trust: ListenerTlsValidationContextTrust,
});

shape!(union ListenerTlsValidationContextTrust {
    file: TlsValidationContextFileTrust,
    sds: TlsValidationContextSdsTrust,
});

shape!(structure Logging {
    may accessLog: AccessLog,
});

shape!(union AccessLog {
    file: FileAccessLog,
});

shape!(structure FileAccessLog {
    may format: LoggingFormat,
    needs path: FilePath,
});

shape!(union ServiceDiscovery {
    awsCloudMap: AwsCloudMapServiceDiscovery,
    dns: DnsServiceDiscovery,
});

shape!(structure AwsCloudMapServiceDiscovery {
    may attributes: AwsCloudMapInstanceAttributes,
    may ipPreference: IpPreference,
    needs namespaceName: AwsCloudMapName,
    needs serviceName: AwsCloudMapName,
});

shape!(list AwsCloudMapInstanceAttributes of AwsCloudMapInstanceAttribute);

shape!(structure AwsCloudMapInstanceAttribute {
    needs key: AwsCloudMapInstanceAttributeKey,
    needs value: AwsCloudMapInstanceAttributeValue,
});

shape!(structure DnsServiceDiscovery {
    needs hostname: Hostname,
    may ipPreference: IpPreference,
    may responseType: DnsResponseType,
});
