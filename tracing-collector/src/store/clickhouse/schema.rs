// SPDX-License-Identifier: Apache-2.0
//! The tables in ClickHouse, made and migrated at start. Every statement may run twice and beside another collector's.
//! Partitions are UTC days of arrival, so retention drops them whole. `spans` has the columns that the OpenTelemetry
//! exporter writes, under its names, so that its users' queries hold; it is ordered by trace, for settling reads traces.

use crate::store::clickhouse::ClickHouseError;
use crate::store::clickhouse::http::Http;

/// What these programs need: `DateTime64`, `Map`, `ReplacingMergeTree(version, deleted)` and today's HTTP behaviour.
const OLDEST: u32 = 24;

/// Those with days to drop.
pub(super) const DAILY: [&str; 4] = ["spans", "trace_summaries", "trace_places", "unsettled"];

/// One entry per version of the schema; a new version is appended, an old one never changed.
const VERSIONS: [&[&str]; 1] = [&[
    "CREATE TABLE IF NOT EXISTS spans (
        Day Date, Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)), TraceId String CODEC(ZSTD(1)), SpanId String CODEC(ZSTD(1)),
        ParentSpanId String CODEC(ZSTD(1)), SpanName LowCardinality(String), SpanKind LowCardinality(String),
        ServiceName LowCardinality(String), SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
        Duration UInt64, StatusCode LowCardinality(String), Complete UInt8, Arrived UInt64, Record String CODEC(ZSTD(3)),
        INDEX attribute_keys mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX attribute_values mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX duration Duration TYPE minmax GRANULARITY 1
    ) ENGINE = ReplacingMergeTree(Arrived) PARTITION BY Day ORDER BY (TraceId, SpanId, Complete)",
    "CREATE TABLE IF NOT EXISTS trace_summaries (
        Day Date, TraceId String, Version UInt128, Revision UInt32, Start DateTime64(6), End DateTime64(6),
        Name String, EntryPoint LowCardinality(String), Services Array(LowCardinality(String)),
        Fault UInt8, Error UInt8, Throttle UInt8, Partial UInt8, HttpMethod LowCardinality(String), HttpUrl String, HttpStatus UInt16,
        `Counts.Kind` Array(UInt8), `Counts.Source` Array(LowCardinality(String)), `Counts.SourceType` Array(LowCardinality(String)),
        `Counts.Target` Array(LowCardinality(String)), `Counts.TargetType` Array(LowCardinality(String)),
        `Counts.End` Array(UInt64), `Counts.Response` Array(UInt64), `Counts.Duration` Array(UInt64), `Counts.Outcome` Array(UInt8),
        `Counts.Root` Array(UInt8), `Counts.Inferred` Array(UInt8), `Counts.Between` Array(Int64), Record String CODEC(ZSTD(3))
    ) ENGINE = ReplacingMergeTree(Version) PARTITION BY Day ORDER BY TraceId",
    "CREATE TABLE IF NOT EXISTS trace_places (Day Date, Place String, TraceId String, Flags UInt8)
        ENGINE = ReplacingMergeTree PARTITION BY Day ORDER BY (Place, Flags)",
    "CREATE TABLE IF NOT EXISTS unsettled (Day Date, TraceId String, Owner String, Version UInt64, Settled UInt8)
        ENGINE = ReplacingMergeTree(Version, Settled) PARTITION BY Day ORDER BY (TraceId, Owner)",
    "CREATE TABLE IF NOT EXISTS kept (Kind LowCardinality(String), Name String, Value String, Version UInt64, Gone UInt8)
        ENGINE = ReplacingMergeTree(Version, Gone) ORDER BY (Kind, Name)",
]];

pub(super) fn prepare(http: &Http) -> Result<(), ClickHouseError> {
    let version = http.version()?;
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST) {
        return Err(ClickHouseError::TooOld {
            address: http.address().to_string(),
            version,
        });
    }
    http.make_database()?;
    http.execute(
        "CREATE TABLE IF NOT EXISTS pillion_schema (Version UInt32, At DateTime DEFAULT now())
            ENGINE = MergeTree ORDER BY Version",
    )?;
    let known = http.number("SELECT max(Version) FROM pillion_schema")?;
    if known > VERSIONS.len() {
        return Err(ClickHouseError::Newer {
            address: http.address().to_string(),
            found: known,
            ours: VERSIONS.len(),
        });
    }
    for (at, statements) in VERSIONS.iter().enumerate().skip(known) {
        for statement in *statements {
            http.execute(statement)?;
        }
        http.execute(&format!(
            "INSERT INTO pillion_schema (Version) VALUES ({})",
            at + 1
        ))?;
    }
    Ok(())
}
