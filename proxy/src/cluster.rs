// SPDX-License-Identifier: Apache-2.0
//! A cluster at run time: endpoints, balancing, limits, ejection.
