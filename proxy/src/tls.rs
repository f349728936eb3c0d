// SPDX-License-Identifier: Apache-2.0
//! Terminates and originates TLS, and checks names.
