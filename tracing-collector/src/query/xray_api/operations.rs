// SPDX-License-Identifier: Apache-2.0
//! The operations of the X-Ray API: their names and paths, as botocore's model has them. Routed by `xray_api`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    PutTraceSegments,
    PutTelemetryRecords,
    BatchGetTraces,
    GetTraceSummaries,
    GetTraceGraph,
    GetServiceGraph,
    GetTimeSeriesServiceStatistics,
    GetSamplingRules,
    GetSamplingTargets,
    GetSamplingStatisticSummaries,
    CreateSamplingRule,
    UpdateSamplingRule,
    DeleteSamplingRule,
    CreateGroup,
    GetGroup,
    GetGroups,
    UpdateGroup,
    DeleteGroup,
    TagResource,
    UntagResource,
    ListTagsForResource,
    PutEncryptionConfig,
    GetEncryptionConfig,
    PutResourcePolicy,
    DeleteResourcePolicy,
    ListResourcePolicies,
    GetIndexingRules,
    UpdateIndexingRule,
    GetTraceSegmentDestination,
    UpdateTraceSegmentDestination,
    StartTraceRetrieval,
    ListRetrievedTraces,
    GetRetrievedTracesGraph,
    CancelTraceRetrieval,
    GetInsight,
    GetInsightEvents,
    GetInsightImpactGraph,
    GetInsightSummaries,
}

/// Names and paths. The paths are irregular in the model: no rule derives them.
pub(super) const OPERATIONS: [(Operation, &str, &str); 38] = [
    (
        Operation::PutTraceSegments,
        "PutTraceSegments",
        "/TraceSegments",
    ),
    (
        Operation::PutTelemetryRecords,
        "PutTelemetryRecords",
        "/TelemetryRecords",
    ),
    (Operation::BatchGetTraces, "BatchGetTraces", "/Traces"),
    (
        Operation::GetTraceSummaries,
        "GetTraceSummaries",
        "/TraceSummaries",
    ),
    (Operation::GetTraceGraph, "GetTraceGraph", "/TraceGraph"),
    (
        Operation::GetServiceGraph,
        "GetServiceGraph",
        "/ServiceGraph",
    ),
    (
        Operation::GetTimeSeriesServiceStatistics,
        "GetTimeSeriesServiceStatistics",
        "/TimeSeriesServiceStatistics",
    ),
    (
        Operation::GetSamplingRules,
        "GetSamplingRules",
        "/GetSamplingRules",
    ),
    (
        Operation::GetSamplingTargets,
        "GetSamplingTargets",
        "/SamplingTargets",
    ),
    (
        Operation::GetSamplingStatisticSummaries,
        "GetSamplingStatisticSummaries",
        "/SamplingStatisticSummaries",
    ),
    (
        Operation::CreateSamplingRule,
        "CreateSamplingRule",
        "/CreateSamplingRule",
    ),
    (
        Operation::UpdateSamplingRule,
        "UpdateSamplingRule",
        "/UpdateSamplingRule",
    ),
    (
        Operation::DeleteSamplingRule,
        "DeleteSamplingRule",
        "/DeleteSamplingRule",
    ),
    (Operation::CreateGroup, "CreateGroup", "/CreateGroup"),
    (Operation::GetGroup, "GetGroup", "/GetGroup"),
    (Operation::GetGroups, "GetGroups", "/Groups"),
    (Operation::UpdateGroup, "UpdateGroup", "/UpdateGroup"),
    (Operation::DeleteGroup, "DeleteGroup", "/DeleteGroup"),
    (Operation::TagResource, "TagResource", "/TagResource"),
    (Operation::UntagResource, "UntagResource", "/UntagResource"),
    (
        Operation::ListTagsForResource,
        "ListTagsForResource",
        "/ListTagsForResource",
    ),
    (
        Operation::PutEncryptionConfig,
        "PutEncryptionConfig",
        "/PutEncryptionConfig",
    ),
    (
        Operation::GetEncryptionConfig,
        "GetEncryptionConfig",
        "/EncryptionConfig",
    ),
    (
        Operation::PutResourcePolicy,
        "PutResourcePolicy",
        "/PutResourcePolicy",
    ),
    (
        Operation::DeleteResourcePolicy,
        "DeleteResourcePolicy",
        "/DeleteResourcePolicy",
    ),
    (
        Operation::ListResourcePolicies,
        "ListResourcePolicies",
        "/ListResourcePolicies",
    ),
    (
        Operation::GetIndexingRules,
        "GetIndexingRules",
        "/GetIndexingRules",
    ),
    (
        Operation::UpdateIndexingRule,
        "UpdateIndexingRule",
        "/UpdateIndexingRule",
    ),
    (
        Operation::GetTraceSegmentDestination,
        "GetTraceSegmentDestination",
        "/GetTraceSegmentDestination",
    ),
    (
        Operation::UpdateTraceSegmentDestination,
        "UpdateTraceSegmentDestination",
        "/UpdateTraceSegmentDestination",
    ),
    (
        Operation::StartTraceRetrieval,
        "StartTraceRetrieval",
        "/StartTraceRetrieval",
    ),
    (
        Operation::ListRetrievedTraces,
        "ListRetrievedTraces",
        "/ListRetrievedTraces",
    ),
    (
        Operation::GetRetrievedTracesGraph,
        "GetRetrievedTracesGraph",
        "/GetRetrievedTracesGraph",
    ),
    (
        Operation::CancelTraceRetrieval,
        "CancelTraceRetrieval",
        "/CancelTraceRetrieval",
    ),
    (Operation::GetInsight, "GetInsight", "/Insight"),
    (
        Operation::GetInsightEvents,
        "GetInsightEvents",
        "/InsightEvents",
    ),
    (
        Operation::GetInsightImpactGraph,
        "GetInsightImpactGraph",
        "/InsightImpactGraph",
    ),
    (
        Operation::GetInsightSummaries,
        "GetInsightSummaries",
        "/InsightSummaries",
    ),
];

pub(super) type Offered = (Operation, &'static str, &'static str);

/// Whether a POST to this path, or with this `X-Amz-Target`, is more than a question.
pub(crate) fn changes(path: &str, target: &str) -> bool {
    let named = target.rsplit('.').next().unwrap_or_default();
    let by_path = OPERATIONS.iter().find(|(_, _, known)| *known == path);
    let name = by_path.map_or(named, |(_, name, _)| *name);
    const QUESTIONS: [&str; 5] = ["Get", "BatchGet", "List", "StartTrace", "CancelTrace"];
    !QUESTIONS.iter().any(|verb| name.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_path_and_a_name_of_its_own() {
        let distinct = |part: fn(&Offered) -> &'static str| {
            let all: std::collections::BTreeSet<&str> = OPERATIONS.iter().map(part).collect();
            all.len()
        };
        assert_eq!(distinct(|(_, name, _)| name), OPERATIONS.len());
        assert_eq!(distinct(|(_, _, path)| path), OPERATIONS.len());
    }
}
