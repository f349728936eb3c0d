// SPDX-License-Identifier: Apache-2.0
//! The only wiring: binds sockets, starts the parts, returns the bound addresses.
