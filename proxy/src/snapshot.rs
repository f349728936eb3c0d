// SPDX-License-Identifier: Apache-2.0
//! The immutable data-plane configuration, and `Live`, which swaps it.
