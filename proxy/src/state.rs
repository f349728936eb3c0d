// SPDX-License-Identifier: Apache-2.0
//! The last good resources on disk, for a start without control plane.
