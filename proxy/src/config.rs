// SPDX-License-Identifier: Apache-2.0
//! Bootstrap: who this proxy is, where its control plane is, what it binds.
