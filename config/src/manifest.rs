// SPDX-License-Identifier: Apache-2.0
//! Resources as people keep them in files: the create-* input shapes of the AWS CLI as JSON or YAML, and CloudFormation
//! templates with `AWS::AppMesh::*` resources. The CLI reads the files and sends the documents; this does neither.
