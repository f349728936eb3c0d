// SPDX-License-Identifier: Apache-2.0
//! HTTP on the data path: server, stack of layers, client.
