// SPDX-License-Identifier: Apache-2.0
//! Pure route matching over checked route tables.
