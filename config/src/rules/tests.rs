// SPDX-License-Identifier: Apache-2.0
//! One test per rule, each with a document on either side of it.
