// SPDX-License-Identifier: Apache-2.0
//! The table for the inputs of all 38 operations, tags included.

use super::edge::{MeshSpec, VirtualGatewaySpec, VirtualRouterSpec, VirtualServiceSpec};
use super::gateway_route::GatewayRouteSpec;
use super::node::VirtualNodeSpec;
use super::route::RouteSpec;
use super::scalars::{
    AccountId, Arn, ListGatewayRoutesLimit, ListMeshesLimit, ListRoutesLimit,
    ListVirtualGatewaysLimit, ListVirtualNodesLimit, ListVirtualRoutersLimit,
    ListVirtualServicesLimit, ResourceName, ServiceName, String, TagKey, TagValue, TagsLimit,
};

shape!(structure CreateGatewayRouteInput {
    may clientToken: String,
    needs gatewayRouteName: ResourceName,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: GatewayRouteSpec,
    may tags: TagList,
    uri virtualGatewayName: ResourceName,
});

shape!(list TagList of TagRef, min 0, max 50);

shape!(structure TagRef {
    needs key: TagKey,
    needs value: TagValue,
});

shape!(structure CreateMeshInput {
    may clientToken: String,
    needs meshName: ResourceName,
    may spec: MeshSpec,
    may tags: TagList,
});

shape!(structure CreateRouteInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs routeName: ResourceName,
    needs spec: RouteSpec,
    may tags: TagList,
    uri virtualRouterName: ResourceName,
});

shape!(structure CreateVirtualGatewayInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualGatewaySpec,
    may tags: TagList,
    needs virtualGatewayName: ResourceName,
});

shape!(structure CreateVirtualNodeInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualNodeSpec,
    may tags: TagList,
    needs virtualNodeName: ResourceName,
});

shape!(structure CreateVirtualRouterInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualRouterSpec,
    may tags: TagList,
    needs virtualRouterName: ResourceName,
});

shape!(structure CreateVirtualServiceInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualServiceSpec,
    may tags: TagList,
    needs virtualServiceName: ServiceName,
});

shape!(structure DeleteGatewayRouteInput {
    uri gatewayRouteName: ResourceName,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualGatewayName: ResourceName,
});

shape!(structure DeleteMeshInput {
    uri meshName: ResourceName,
});

shape!(structure DeleteRouteInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri routeName: ResourceName,
    uri virtualRouterName: ResourceName,
});

shape!(structure DeleteVirtualGatewayInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualGatewayName: ResourceName,
});

shape!(structure DeleteVirtualNodeInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualNodeName: ResourceName,
});

shape!(structure DeleteVirtualRouterInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualRouterName: ResourceName,
});

shape!(structure DeleteVirtualServiceInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualServiceName: ServiceName,
});

shape!(structure DescribeGatewayRouteInput {
    uri gatewayRouteName: ResourceName,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualGatewayName: ResourceName,
});

shape!(structure DescribeMeshInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
});

shape!(structure DescribeRouteInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri routeName: ResourceName,
    uri virtualRouterName: ResourceName,
});

shape!(structure DescribeVirtualGatewayInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualGatewayName: ResourceName,
});

shape!(structure DescribeVirtualNodeInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualNodeName: ResourceName,
});

shape!(structure DescribeVirtualRouterInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualRouterName: ResourceName,
});

shape!(structure DescribeVirtualServiceInput {
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri virtualServiceName: ServiceName,
});

shape!(structure ListGatewayRoutesInput {
    query limit: ListGatewayRoutesLimit,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    query nextToken: String,
    uri virtualGatewayName: ResourceName,
});

shape!(structure ListMeshesInput {
    query limit: ListMeshesLimit,
    query nextToken: String,
});

shape!(structure ListRoutesInput {
    query limit: ListRoutesLimit,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    query nextToken: String,
    uri virtualRouterName: ResourceName,
});

shape!(structure ListTagsForResourceInput {
    query limit: TagsLimit,
    query nextToken: String,
    key resourceArn: Arn,
});

shape!(structure ListVirtualGatewaysInput {
    query limit: ListVirtualGatewaysLimit,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    query nextToken: String,
});

shape!(structure ListVirtualNodesInput {
    query limit: ListVirtualNodesLimit,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    query nextToken: String,
});

shape!(structure ListVirtualRoutersInput {
    query limit: ListVirtualRoutersLimit,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    query nextToken: String,
});

shape!(structure ListVirtualServicesInput {
    query limit: ListVirtualServicesLimit,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    query nextToken: String,
});

shape!(structure TagResourceInput {
    key resourceArn: Arn,
    needs tags: TagList,
});

shape!(structure UntagResourceInput {
    key resourceArn: Arn,
    needs tagKeys: TagKeyList,
});

shape!(list TagKeyList of TagKey, min 0, max 50);

shape!(structure UpdateGatewayRouteInput {
    may clientToken: String,
    uri gatewayRouteName: ResourceName,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: GatewayRouteSpec,
    uri virtualGatewayName: ResourceName,
});

shape!(structure UpdateMeshInput {
    may clientToken: String,
    uri meshName: ResourceName,
    may spec: MeshSpec,
});

shape!(structure UpdateRouteInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    uri routeName: ResourceName,
    needs spec: RouteSpec,
    uri virtualRouterName: ResourceName,
});

shape!(structure UpdateVirtualGatewayInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualGatewaySpec,
    uri virtualGatewayName: ResourceName,
});

shape!(structure UpdateVirtualNodeInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualNodeSpec,
    uri virtualNodeName: ResourceName,
});

shape!(structure UpdateVirtualRouterInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualRouterSpec,
    uri virtualRouterName: ResourceName,
});

shape!(structure UpdateVirtualServiceInput {
    may clientToken: String,
    uri meshName: ResourceName,
    query meshOwner: AccountId,
    needs spec: VirtualServiceSpec,
    uri virtualServiceName: ServiceName,
});

/// Every operation with its input.
pub static OPERATIONS: &[(&str, &super::Shape)] = &[
    ("CreateGatewayRoute", &CreateGatewayRouteInput),
    ("CreateMesh", &CreateMeshInput),
    ("CreateRoute", &CreateRouteInput),
    ("CreateVirtualGateway", &CreateVirtualGatewayInput),
    ("CreateVirtualNode", &CreateVirtualNodeInput),
    ("CreateVirtualRouter", &CreateVirtualRouterInput),
    ("CreateVirtualService", &CreateVirtualServiceInput),
    ("DeleteGatewayRoute", &DeleteGatewayRouteInput),
    ("DeleteMesh", &DeleteMeshInput),
    ("DeleteRoute", &DeleteRouteInput),
    ("DeleteVirtualGateway", &DeleteVirtualGatewayInput),
    ("DeleteVirtualNode", &DeleteVirtualNodeInput),
    ("DeleteVirtualRouter", &DeleteVirtualRouterInput),
    ("DeleteVirtualService", &DeleteVirtualServiceInput),
    ("DescribeGatewayRoute", &DescribeGatewayRouteInput),
    ("DescribeMesh", &DescribeMeshInput),
    ("DescribeRoute", &DescribeRouteInput),
    ("DescribeVirtualGateway", &DescribeVirtualGatewayInput),
    ("DescribeVirtualNode", &DescribeVirtualNodeInput),
    ("DescribeVirtualRouter", &DescribeVirtualRouterInput),
    ("DescribeVirtualService", &DescribeVirtualServiceInput),
    ("ListGatewayRoutes", &ListGatewayRoutesInput),
    ("ListMeshes", &ListMeshesInput),
    ("ListRoutes", &ListRoutesInput),
    ("ListTagsForResource", &ListTagsForResourceInput),
    ("ListVirtualGateways", &ListVirtualGatewaysInput),
    ("ListVirtualNodes", &ListVirtualNodesInput),
    ("ListVirtualRouters", &ListVirtualRoutersInput),
    ("ListVirtualServices", &ListVirtualServicesInput),
    ("TagResource", &TagResourceInput),
    ("UntagResource", &UntagResourceInput),
    ("UpdateGatewayRoute", &UpdateGatewayRouteInput),
    ("UpdateMesh", &UpdateMeshInput),
    ("UpdateRoute", &UpdateRouteInput),
    ("UpdateVirtualGateway", &UpdateVirtualGatewayInput),
    ("UpdateVirtualNode", &UpdateVirtualNodeInput),
    ("UpdateVirtualRouter", &UpdateVirtualRouterInput),
    ("UpdateVirtualService", &UpdateVirtualServiceInput),
];
