// SPDX-License-Identifier: Apache-2.0
//! References, deletes and views on a small storefront.
