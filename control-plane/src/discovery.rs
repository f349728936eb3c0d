// SPDX-License-Identifier: Apache-2.0
//! Names to addresses. Being written.
