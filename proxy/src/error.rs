// SPDX-License-Identifier: Apache-2.0
//! Faults of the request path: whose they are, whether to retry, which status they become.
