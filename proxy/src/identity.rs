// SPDX-License-Identifier: Apache-2.0
//! This proxy's own certificate: key, CSR, renewal.
