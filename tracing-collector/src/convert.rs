// SPDX-License-Identifier: Apache-2.0
//! Foreign shapes to [`crate::span::Span`] and back. Pure: bytes or messages in, spans or named refusals out.

pub(crate) mod otlp;
pub(crate) mod xray;
pub(crate) mod zipkin;
