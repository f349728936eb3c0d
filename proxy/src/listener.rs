// SPDX-License-Identifier: Apache-2.0
//! Accepts connections, learns where they were going, and hands them to a filter chain.
