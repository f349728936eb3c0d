// SPDX-License-Identifier: Apache-2.0
//! The table for gateway routes.

use super::route::{HeaderMatchMethod, HttpPathMatch, HttpQueryParameters, MatchRange};
use super::scalars::{
    Boolean, DefaultGatewayRouteRewrite, ExactHostName, GatewayRoutePriority, HeaderMatch,
    HeaderName, HttpGatewayRoutePrefix, HttpMethod, HttpPathExact, ListenerPort, ResourceName,
    ServiceName, String, SuffixHostname,
};

shape!(structure GatewayRouteSpec {
    may grpcRoute: GrpcGatewayRoute,
    may http2Route: HttpGatewayRoute,
    may httpRoute: HttpGatewayRoute,
    may priority: GatewayRoutePriority,
});

shape!(structure GrpcGatewayRoute {
    needs action: GrpcGatewayRouteAction,
    needs match: GrpcGatewayRouteMatch,
});

shape!(structure GrpcGatewayRouteAction {
    may rewrite: GrpcGatewayRouteRewrite,
    needs target: GatewayRouteTarget,
});

shape!(structure GrpcGatewayRouteRewrite {
    may hostname: GatewayRouteHostnameRewrite,
});

shape!(structure GatewayRouteHostnameRewrite {
    may defaultTargetHostname: DefaultGatewayRouteRewrite,
});

shape!(structure GatewayRouteTarget {
    may port: ListenerPort,
    needs virtualService: GatewayRouteVirtualService,
});

shape!(structure GatewayRouteVirtualService {
    needs virtualServiceName: ResourceName,
});

shape!(structure GrpcGatewayRouteMatch {
    may hostname: GatewayRouteHostnameMatch,
    may metadata: GrpcGatewayRouteMetadataList,
    may port: ListenerPort,
    may serviceName: ServiceName,
});

shape!(structure GatewayRouteHostnameMatch {
    may exact: ExactHostName,
    may suffix: SuffixHostname,
});

shape!(list GrpcGatewayRouteMetadataList of GrpcGatewayRouteMetadata, min 1, max 10);

shape!(structure GrpcGatewayRouteMetadata {
    may invert: Boolean,
    may match: GrpcMetadataMatchMethod,
    needs name: HeaderName,
});

shape!(union GrpcMetadataMatchMethod {
    exact: HeaderMatch,
    prefix: HeaderMatch,
    range: MatchRange,
    regex: HeaderMatch,
    suffix: HeaderMatch,
});

shape!(structure HttpGatewayRoute {
    needs action: HttpGatewayRouteAction,
    needs match: HttpGatewayRouteMatch,
});

shape!(structure HttpGatewayRouteAction {
    may rewrite: HttpGatewayRouteRewrite,
    needs target: GatewayRouteTarget,
});

shape!(structure HttpGatewayRouteRewrite {
    may hostname: GatewayRouteHostnameRewrite,
    may path: HttpGatewayRoutePathRewrite,
    may prefix: HttpGatewayRoutePrefixRewrite,
});

shape!(structure HttpGatewayRoutePathRewrite {
    may exact: HttpPathExact,
});

shape!(structure HttpGatewayRoutePrefixRewrite {
    may defaultPrefix: DefaultGatewayRouteRewrite,
    may value: HttpGatewayRoutePrefix,
});

shape!(structure HttpGatewayRouteMatch {
    may headers: HttpGatewayRouteHeaders,
    may hostname: GatewayRouteHostnameMatch,
    may method: HttpMethod,
    may path: HttpPathMatch,
    may port: ListenerPort,
    may prefix: String,
    may queryParameters: HttpQueryParameters,
});

shape!(list HttpGatewayRouteHeaders of HttpGatewayRouteHeader, min 1, max 10);

shape!(structure HttpGatewayRouteHeader {
    may invert: Boolean,
    may match: HeaderMatchMethod,
    needs name: HeaderName,
});
