// SPDX-License-Identifier: Apache-2.0
//! Opaque bytes between downstream and upstream.
