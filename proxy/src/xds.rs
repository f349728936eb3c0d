// SPDX-License-Identifier: Apache-2.0
//! The control plane's stream and what becomes of its resources.
