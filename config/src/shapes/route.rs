// SPDX-License-Identifier: Apache-2.0
//! The table for routes.

use super::node::{Duration, GrpcTimeout, HttpTimeout, TcpTimeout};
use super::scalars::{
    Boolean, GrpcRetryPolicyEvent, HeaderMatch, HeaderName, HttpMethod, HttpPathExact,
    HttpPathRegex, HttpRetryPolicyEvent, HttpScheme, ListenerPort, Long, MaxRetries, MethodName,
    PercentInt, QueryParameterName, ResourceName, RoutePriority, ServiceName, String,
    TcpRetryPolicyEvent,
};

shape!(structure MatchRange {
    needs end: Long,
    needs start: Long,
});

shape!(union HeaderMatchMethod {
    exact: HeaderMatch,
    prefix: HeaderMatch,
    range: MatchRange,
    regex: HeaderMatch,
    suffix: HeaderMatch,
});

shape!(structure HttpPathMatch {
    may exact: HttpPathExact,
    may regex: HttpPathRegex,
});

shape!(list HttpQueryParameters of HttpQueryParameter, min 1, max 10);

shape!(structure HttpQueryParameter {
    may match: QueryParameterMatch,
    needs name: QueryParameterName,
});

shape!(structure QueryParameterMatch {
    may exact: String,
});

shape!(structure RouteSpec {
    may grpcRoute: GrpcRoute,
    may http2Route: HttpRoute,
    may httpRoute: HttpRoute,
    may priority: RoutePriority,
    may tcpRoute: TcpRoute,
});

shape!(structure GrpcRoute {
    needs action: GrpcRouteAction,
    needs match: GrpcRouteMatch,
    may retryPolicy: GrpcRetryPolicy,
    may timeout: GrpcTimeout,
});

shape!(structure GrpcRouteAction {
    needs weightedTargets: WeightedTargets,
});

shape!(list WeightedTargets of WeightedTarget, min 1, max 10);

shape!(structure WeightedTarget {
    may port: ListenerPort,
    needs virtualNode: ResourceName,
    needs weight: PercentInt,
});

shape!(structure GrpcRouteMatch {
    may metadata: GrpcRouteMetadataList,
    may methodName: MethodName,
    may port: ListenerPort,
    may serviceName: ServiceName,
});

shape!(list GrpcRouteMetadataList of GrpcRouteMetadata, min 1, max 10);

shape!(structure GrpcRouteMetadata {
    may invert: Boolean,
    may match: GrpcRouteMetadataMatchMethod,
    needs name: HeaderName,
});

shape!(union GrpcRouteMetadataMatchMethod {
    exact: HeaderMatch,
    prefix: HeaderMatch,
    range: MatchRange,
    regex: HeaderMatch,
    suffix: HeaderMatch,
});

shape!(structure GrpcRetryPolicy {
    may grpcRetryEvents: GrpcRetryPolicyEvents,
    may httpRetryEvents: HttpRetryPolicyEvents,
    needs maxRetries: MaxRetries,
    needs perRetryTimeout: Duration,
    may tcpRetryEvents: TcpRetryPolicyEvents,
});

shape!(list GrpcRetryPolicyEvents of GrpcRetryPolicyEvent, min 1, max 5);
shape!(list HttpRetryPolicyEvents of HttpRetryPolicyEvent, min 1, max 25);
shape!(list TcpRetryPolicyEvents of TcpRetryPolicyEvent, min 1, max 1);

shape!(structure HttpRoute {
    needs action: HttpRouteAction,
    needs match: HttpRouteMatch,
    may retryPolicy: HttpRetryPolicy,
    may timeout: HttpTimeout,
});

shape!(structure HttpRouteAction {
    needs weightedTargets: WeightedTargets,
});

shape!(structure HttpRouteMatch {
    may headers: HttpRouteHeaders,
    may method: HttpMethod,
    may path: HttpPathMatch,
    may port: ListenerPort,
    may prefix: String,
    may queryParameters: HttpQueryParameters,
    may scheme: HttpScheme,
});

shape!(list HttpRouteHeaders of HttpRouteHeader, min 1, max 10);

shape!(structure HttpRouteHeader {
    may invert: Boolean,
    may match: HeaderMatchMethod,
    needs name: HeaderName,
});

shape!(structure HttpRetryPolicy {
    may httpRetryEvents: HttpRetryPolicyEvents,
    needs maxRetries: MaxRetries,
    needs perRetryTimeout: Duration,
    may tcpRetryEvents: TcpRetryPolicyEvents,
});

shape!(structure TcpRoute {
    needs action: TcpRouteAction,
    may match: TcpRouteMatch,
    may timeout: TcpTimeout,
});

shape!(structure TcpRouteAction {
    needs weightedTargets: WeightedTargets,
});

shape!(structure TcpRouteMatch {
    may port: ListenerPort,
});
