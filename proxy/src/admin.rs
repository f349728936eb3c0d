// SPDX-License-Identifier: Apache-2.0
//! The admin server on 9901 with Envoy's paths, and the agent server on 9902.
